"""How fast the training loader hands out rows of a warm store, against memcpy of the same bytes in the same run.

    python benchmarks/bench_reader.py                     speed, on a 1 GB store
    python benchmarks/bench_reader.py --mode memory       anonymous memory of reading a 0.4 GB and a 4 GB store

Prints JSON. Stores are made in a temporary folder, `--folder` says where.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from datamodules.shards import ActivationStore, BlockShuffle, StoreWriter, TrainingLoader

D = 384
BATCH_ROWS = 4096
HOOK_POINT = "encoder.layer.2"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mode", choices=["speed", "memory", "measure_memory"], default="speed")
    parser.add_argument("--gigabytes", type=float, nargs="+", help="store sizes; default 1, or 0.4 and 4 for memory")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="bfloat16", help="in the store")
    parser.add_argument("--block-rows", type=int, nargs="+", default=[1, 8, 16, 64])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--folder", help="for the stores")
    options = parser.parse_args()
    if options.mode == "measure_memory":
        print(json.dumps(measure_memory(ActivationStore(options.folder))))
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
    bytes_per_chunk = BATCH_ROWS * D * (4 if dtype == "float32" else 2)
    chunks = round(gigabytes * 1e9 / bytes_per_chunk)
    with StoreWriter(folder, {HOOK_POINT: D}, dtype) as writer:
        for document in range(chunks):
            writer.append({HOOK_POINT: chunk}, numbers, torch.full_like(numbers, document), numbers)
        writer.finish({}, [f"document {number}" for number in range(chunks)])
    return ActivationStore(folder)


def speed(store: ActivationStore, options: argparse.Namespace) -> dict[str, object]:
    """Medians over rounds that measure everything in turn, so that a busy spell of the machine falls on all alike."""
    delivered = BATCH_ROWS * D * 4
    stored = delivered if options.dtype == "float32" else delivered // 2
    batches = len(loader(store, 1))
    jobs: dict[str, Callable[[], object]] = {
        "memcpy of what is delivered": lambda: copy_sequentially(store, delivered, batches),
        "memcpy of what is stored": lambda: copy_sequentially(store, stored, batches),
    }
    for block_rows in options.block_rows:
        jobs[f"float32, block_rows {block_rows}"] = lambda rows=block_rows: exhaust(loader(store, rows))
        jobs[f"as stored, block_rows {block_rows}"] = lambda rows=block_rows: read_as_stored(store, rows)
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    for job in jobs.values():
        job()  # brings every page into the page cache and into the process
    for _ in range(options.rounds):
        for name, job in jobs.items():
            started = time.perf_counter()
            job()
            seconds[name].append(time.perf_counter() - started)
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    return {
        "gigabytes": round(sum(file.bytes for file in store.manifest.files) / 1e9, 2),
        "dtype": options.dtype,
        "rows": store.rows,
        "rounds": options.rounds,
        "results": {
            name: {
                "gigabytes_per_second": round(batches * size / median / 1e9, 2),
                "rows_per_second": round(batches * BATCH_ROWS / median),
                "of_memcpy": round(medians[baseline] / median, 2),
            }
            for name, median in medians.items()
            for size, baseline in [
                (stored, "memcpy of what is stored") if "stored" in name else (delivered, "memcpy of what is delivered")
            ]
        },
    }


def loader(store: ActivationStore, block_rows: int) -> TrainingLoader:
    shuffle = BlockShuffle(torch.tensor([[0, store.rows]]), block_rows, seed=0)
    return TrainingLoader(store, shuffle, [HOOK_POINT], BATCH_ROWS)


def exhaust(batches: TrainingLoader) -> None:
    for _ in batches:
        pass


def read_as_stored(store: ActivationStore, block_rows: int) -> None:
    shuffle = loader(store, block_rows).shuffle
    for start in range(0, store.rows - BATCH_ROWS + 1, BATCH_ROWS):
        store.read(shuffle.rows(0, start, start + BATCH_ROWS).sort().values, dtype=None)


def copy_sequentially(store: ActivationStore, bytes_per_batch: int, batches: int) -> None:
    """The fastest copy of as many bytes: in order, into one buffer that is used again, on all threads."""
    shards = [mapped_bytes(store, shard.activations[HOOK_POINT].name) for shard in store.manifest.shards]
    buffer = torch.empty(bytes_per_batch, dtype=torch.uint8)
    shard, position = 0, 0
    for _ in range(batches):
        if position + bytes_per_batch > len(shards[shard]):
            shard, position = (shard + 1) % len(shards), 0
        available = shards[shard][position : position + bytes_per_batch]
        buffer[: len(available)].copy_(available)
        position += bytes_per_batch


def mapped_bytes(store: ActivationStore, name: str) -> Tensor:
    # mapped copy-on-write: torch complains about read-only arrays
    return torch.from_numpy(np.memmap(store.folder / name, dtype=np.uint8, mode="c"))


def memory(store: ActivationStore, options: argparse.Namespace) -> dict[str, object]:
    """Reads one epoch in a fresh process."""
    command = [sys.executable, __file__, "--mode", "measure_memory", "--folder", str(store.folder)]
    result: dict[str, object] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return {"gigabytes": round(store.rows * D * (4 if options.dtype == "float32" else 2) / 1e9, 2), **result}


def measure_memory(store: ActivationStore) -> dict[str, object]:
    peak = 0
    for _ in loader(store, 16):
        peak = max(peak, resident_megabytes("RssAnon"))
    return {"peak_rss_anon_mb": peak, "rss_file_mb": resident_megabytes("RssFile"), "rows": store.rows}


def resident_megabytes(kind: str) -> int:
    """Linux's count for this process: RssAnon is memory of its own, RssFile is page cache that it looks at."""
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith(kind)) // 1024


if __name__ == "__main__":
    main()
