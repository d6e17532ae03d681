"""What ranks cost: two processes with one thread each against one process with two threads, on the same batches.

    python benchmarks/bench_ranks.py [--batch 4096 --d_in 384 --d_sae 3072 --k 32 --variant TopK]

Both run the whole loop of the Trainer, over gloo on one machine, and take turns of a few steps. Prints JSON:
milliseconds of a step are medians over the turns, `loss` is the share of tokens/s that the processes lose, with its
quartiles.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.bench_sae_step import make_store, quartiles, rows
from benchmarks.training import parsed
from benchmarks.turns import Worker

WORKER = Path(__file__).parent / "ranks_worker.py"
KINDS = {"one process, two threads": (1, 2), "two processes, one thread": (2, 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in {"batch": 4096, "d_in": 384, "d_sae": 3072, "k": 32, "turns": 12}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--variant", default="TopK")
    options = parsed(parser, {"batch": 64, "d_in": 16, "d_sae": 64, "k": 4, "turns": 3})
    sizes = {name: getattr(options, name) for name in ("batch", "d_sae", "k", "variant")}
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "store"
        make_store(store, rows(options.batch * 16, options.d_in))
        workers = []
        for number, (name, (ranks, threads)) in enumerate(KINDS.items()):
            settings = json.dumps({**sizes, "ranks": ranks, "threads": threads})
            command = ["env", f"OMP_NUM_THREADS={threads}", sys.executable, str(WORKER), str(store), settings]
            workers.append(Worker(name, command, Path(folder) / f"{number}.log"))
        for _ in range(options.turns):
            for worker in workers:
                worker.turn()
        for worker in workers:
            worker.stop()
    one, two = (worker.seconds for worker in workers)
    low, middle, high = quartiles([1 - alone / together for alone, together in zip(one, two, strict=True)])
    milliseconds = {worker.name: 1e3 * statistics.median(worker.seconds) for worker in workers}
    loss = {"median": middle, "quartiles": [low, high]}
    print(json.dumps({**vars(options), "milliseconds": milliseconds, "loss": loss}, indent=1))


if __name__ == "__main__":
    main()
