"""How fast the training loader hands out rows of a store at a URL, through the cache, against the same store in a
folder, in the same order and in the same run.

    python benchmarks/bench_remote.py

`warm` reads what is in the cache already; `fetched` begins with an empty cache, which holds two groups of shards, and
gets everything from a web server on this machine in each epoch. They take turns, round by round. Prints JSON; every
ratio is of medians. The server, its network and the sha256 of what comes share the processor with the reader.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as main.py does

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from datamodules.shards import (
    ActivationStore,
    GroupedShuffle,
    RemoteStore,
    RowStore,
    ShardCache,
    StoreWriter,
    TrainingLoader,
)
from datamodules.shards.read_ahead import Following

D = 384
HOOK_POINT = "encoder.layer.2"
# aiohttp comes with lightning, and its static files know ranges
SERVER = """
import sys
from aiohttp import web
app = web.Application()
app.router.add_static("/", sys.argv[1])
web.run_app(app, host="127.0.0.1", port=0, print=lambda text: print(text, flush=True))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=400_000)
    parser.add_argument("--shard-bytes", type=int, default=16 * 2**20)
    parser.add_argument("--mixed-shards", type=int, default=4)
    parser.add_argument("--batch-rows", type=int, default=4096)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", help="for the store and the cache; a temporary one by default")
    parser.add_argument("--quick", action="store_true", help="a small store, to see that it works")
    options = parser.parse_args()
    if options.quick:
        options.rows, options.shard_bytes, options.batch_rows, options.rounds = 8_000, 2**20, 512, 1
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        local = make_store(Path(folder, "store"), options)
        with served(Path(folder, "store")) as url:
            print(json.dumps(measured(local, url, Path(folder), options), indent=1))


def make_store(folder: Path, options: argparse.Namespace) -> ActivationStore:
    with StoreWriter(folder, {HOOK_POINT: D}, "bfloat16", options.shard_bytes) as writer:
        for document, start in enumerate(range(0, options.rows, 1000)):
            numbers = torch.arange(start, min(start + 1000, options.rows))
            writer.append({HOOK_POINT: torch.randn(len(numbers), D)}, numbers, numbers * 0 + document, numbers)
        writer.finish({}, [f"document {number}" for number in range(document + 1)])
    return ActivationStore(folder)


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The URL of a folder while the block lasts."""
    command = [sys.executable, "-c", SERVER, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        yield next(word for line in server.stdout for word in line.split() if word.startswith("http"))
        server.terminate()


def measured(local: ActivationStore, url: str, folder: Path, options: argparse.Namespace) -> dict[str, object]:
    shard = max(shard.activations[HOOK_POINT].bytes for shard in local.manifest.shards)
    small = 2 * options.mixed_shards * shard + 2**20
    total = sum(file.bytes for file in local.manifest.files)
    warm = RemoteStore(url, ShardCache(str(folder / "warm"), 2 * total + 2**20))
    fetched: list[RemoteStore] = []

    def fetch() -> RowStore:
        shutil.rmtree(folder / "small", ignore_errors=True)
        fetched.append(RemoteStore(url, ShardCache(str(folder / "small"), small)))
        return fetched[-1]

    jobs: dict[str, Callable[[], RowStore]] = {"local": lambda: local, "warm": lambda: warm, "fetched": fetch}
    read_epoch(local, options)
    read_epoch(warm, options)
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    for _ in range(options.rounds):
        for name, job in jobs.items():
            store = job()
            started = time.perf_counter()
            rows = read_epoch(store, options)
            seconds[name].append(time.perf_counter() - started)
    for store in (warm, *fetched):
        store.close()
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    return {
        "threads": torch.get_num_threads(),
        "megabytes": round(total / 1e6),
        "cache_megabytes": round(small / 1e6),
        "rows_per_second": {name: round(rows / median) for name, median in medians.items()},
        "of_local": {name: round(medians["local"] / median, 3) for name, median in medians.items()},
        "fetched_megabytes_per_second": round(rows / local.rows * total / 1e6 / medians["fetched"]),
    }


def read_epoch(store: RowStore, options: argparse.Namespace) -> int:
    """Reads an epoch; gives its rows."""
    order = GroupedShuffle(
        torch.tensor([[0, store.rows]]), store.shard_rows, options.mixed_shards, block_rows=16, seed=0
    )
    follower = Following(store.read_ahead([HOOK_POINT]), order) if isinstance(store, RemoteStore) else None
    loader = TrainingLoader(store, order, [HOOK_POINT], options.batch_rows, follower=follower)
    return sum(len(batch.rows) for batch in loader)


if __name__ == "__main__":
    main()
