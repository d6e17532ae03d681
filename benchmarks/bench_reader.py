"""How fast the training loader hands out rows of a warm store, against memcpy of the same bytes in the same run.

    python benchmarks/bench_reader.py                     speed, on a 1 GB store
    python benchmarks/bench_reader.py --mode memory       anonymous memory of training on a 0.4 GB and a 4 GB store

Prints JSON. Stores are made in a temporary folder, `--folder` says where.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from itertools import cycle, islice
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as main.py does

import numpy as np
import torch
from lightning.pytorch import Callback, Trainer
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from datamodules.activations import ActivationDataModule
from datamodules.shards import ActivationStore, BlockShuffle, StoreWriter, TrainingLoader
from datamodules.shards.format import HookPoint
from lightning_modules.autoencoders import TopK
from lightning_modules.sparse_autoencoding import SparseAutoencoding

D = 384
BATCH_ROWS = 4096
HOOK_POINT = "encoder.layer.2"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mode", choices=["speed", "memory", "measure_memory"], default="speed")
    parser.add_argument("--gigabytes", type=float, nargs="+", help="store sizes; default 1, or 0.4 and 4 for memory")
    parser.add_argument("--dtype", choices=["float32", "bfloat16", "int8"], default="bfloat16", help="in the store")
    parser.add_argument("--block-rows", type=int, nargs="+", default=[1, 8, 16, 64])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--folder", help="for the stores")
    options = parser.parse_args()
    if options.mode == "measure_memory":
        print(json.dumps(measure_memory(options.folder)))
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        measure = {"speed": speed, "memory": memory}[options.mode]
        sizes = options.gigabytes or {"speed": [1.0], "memory": [0.4, 4.0]}[options.mode]
        stores = [make_store(Path(folder) / str(size), size, options.dtype) for size in sizes]
        results = [measure(store, options) for store in stores]
    print(
        json.dumps({"threads": torch.get_num_threads(), "batch_rows": BATCH_ROWS, "d": D, "stores": results}, indent=1)
    )


def make_store(folder: Path, gigabytes: float, dtype: str) -> ActivationStore:
    chunk = torch.randn(BATCH_ROWS, D)
    numbers = torch.arange(BATCH_ROWS)
    bytes_per_chunk = BATCH_ROWS * row_bytes(dtype)
    chunks = round(gigabytes * 1e9 / bytes_per_chunk)
    with StoreWriter(folder, {HOOK_POINT: D}, dtype) as writer:
        for document in range(chunks):
            writer.append({HOOK_POINT: chunk}, numbers, torch.full_like(numbers, document), numbers)
        writer.finish({}, [f"document {number}" for number in range(chunks)])
    return ActivationStore(folder)


def row_bytes(dtype: str) -> int:
    return HookPoint(D, dtype).row_bytes


def speed(store: ActivationStore, options: argparse.Namespace) -> dict[str, object]:
    """Medians over rounds that measure everything in turn, so that a busy spell of the machine falls on all alike."""
    delivered = BATCH_ROWS * D * 4
    # int8 is handed out as float32 either way
    stored = delivered if options.dtype in ("float32", "int8") else delivered // 2
    jobs: dict[str, tuple[int, Callable[[], object]]] = {}
    for bytes_per_batch in {delivered, stored}:
        jobs[f"memcpy {bytes_per_batch}"] = bytes_per_batch, partial(memcpy, store, bytes_per_batch, False)
        jobs[f"memcpy, hot buffer {bytes_per_batch}"] = bytes_per_batch, partial(memcpy, store, bytes_per_batch, True)
    for block_rows in options.block_rows:
        jobs[f"as float32, block_rows {block_rows}"] = delivered, partial(read_epoch, store, block_rows)
        if options.dtype != "int8":
            jobs[f"as stored, block_rows {block_rows}"] = stored, partial(read_as_stored, store, block_rows)
    seconds = {name: statistics.median(times) for name, times in timed(jobs, options.rounds).items()}
    batches = len(loader(store, 1))
    return {
        "gigabytes": round(sum(file.bytes for file in store.manifest.files) / 1e9, 2),
        "dtype": options.dtype,
        "rows": store.rows,
        "rounds": options.rounds,
        "results": {
            name: {
                "gigabytes_per_second": round(batches * bytes_per_batch / seconds[name] / 1e9, 2),
                "rows_per_second": round(batches * BATCH_ROWS / seconds[name]),
                "of_memcpy": round(seconds[f"memcpy {bytes_per_batch}"] / seconds[name], 2),
                "of_memcpy_into_hot_buffer": round(seconds[f"memcpy, hot buffer {bytes_per_batch}"] / seconds[name], 2),
            }
            for name, (bytes_per_batch, _) in jobs.items()
        },
    }


def timed(jobs: dict[str, tuple[int, Callable[[], object]]], rounds: int) -> dict[str, list[float]]:
    """Seconds of every job in every round."""
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    for _, job in jobs.values():
        job()  # brings every page into the page cache and into the process
    for _ in range(rounds):
        for name, (_, job) in jobs.items():
            started = time.perf_counter()
            job()
            seconds[name].append(time.perf_counter() - started)
    return seconds


def loader(store: ActivationStore, block_rows: int) -> TrainingLoader:
    shuffle = BlockShuffle(torch.tensor([[0, store.rows]]), block_rows, seed=0)
    return TrainingLoader(store, shuffle, [HOOK_POINT], BATCH_ROWS)


def read_epoch(store: ActivationStore, block_rows: int) -> None:
    for _ in loader(store, block_rows):
        pass


def read_as_stored(store: ActivationStore, block_rows: int) -> None:
    shuffle = loader(store, block_rows).shuffle
    for start in range(0, store.rows - BATCH_ROWS + 1, BATCH_ROWS):
        store.read(shuffle.rows(0, start, start + BATCH_ROWS), dtype=None)


def memcpy(store: ActivationStore, bytes_per_batch: int, hot: bool) -> None:
    """Copies as many bytes, in order and on all threads, into a new tensor a batch as the loader must, or (`hot`) into
    one that stays in the processor's cache."""
    shards = [mapped_bytes(store, shard.activations[HOOK_POINT].name) for shard in store.manifest.shards]
    pieces = (
        piece for shard in cycle(shards) for piece in shard.split(bytes_per_batch) if len(piece) == bytes_per_batch
    )
    target = torch.empty(bytes_per_batch, dtype=torch.uint8)
    for piece in islice(pieces, len(loader(store, 1))):
        target = target if hot else torch.empty_like(piece)
        target.copy_(piece)


def mapped_bytes(store: ActivationStore, name: str) -> Tensor:
    # mapped copy-on-write: torch complains about read-only arrays
    return torch.from_numpy(np.memmap(store.folder / name, dtype=np.uint8, mode="c"))


def memory(store: ActivationStore, options: argparse.Namespace) -> dict[str, object]:
    """Trains one epoch in a fresh process."""
    command = [sys.executable, __file__, "--mode", "measure_memory", "--folder", str(store.folder)]
    result: dict[str, object] = json.loads(
        subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1]
    )
    return {"gigabytes": round(store.rows * row_bytes(options.dtype) / 1e9, 2), **result}


class PeakMemory(Callback):
    """The most memory of its own that the process had at the end of a training step."""

    megabytes = 0

    def on_train_batch_end(self, *_: object) -> None:
        self.megabytes = max(self.megabytes, resident_megabytes("RssAnon"))


def measure_memory(folder: str) -> dict[str, object]:
    """Trains a small autoencoder on every row of the store once."""
    data = ActivationDataModule(folder, BATCH_ROWS, validation_share=0.0, test_share=0.0)
    peak = PeakMemory()
    trainer = Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        callbacks=[peak],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
    )
    trainer.fit(SparseAutoencoding(TopK(d_sae=256, k=8)), data)
    return {"peak_rss_anon_mb": peak.megabytes, "rss_file_mb": resident_megabytes("RssFile"), "rows": data.store.rows}


def resident_megabytes(kind: str) -> int:
    """Linux's count for this process: RssAnon is memory of its own, RssFile is page cache that it looks at."""
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith(kind)) // 1024


if __name__ == "__main__":
    main()
