"""How long training stands still for a save of 200 MB: written at once against asynchronously.

    python benchmarks/bench_checkpoint.py [--megabytes 200 --saves 8 --folder .]

Both take turns in one process. Between two saves the benchmark computes, as training would, until the asynchronous one
is on the disk. Prints JSON; `ratio` is the median stall of the asynchronous saves over that of the others.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
sys.path.insert(0, str(Path(__file__).parents[1]))

import torch

from callbacks import AtomicCheckpointIO, SaveOptions


def a_state(megabytes: int) -> dict[str, Any]:
    """A model and the two moments of Adam, in tensors of at most 16 MB."""
    count = max(1, round(megabytes / 3 / 16))
    width = int(megabytes * 10**6 / 3 / count / 4 / 1024)
    weights, first, second = ([torch.randn(1024, width) for _ in range(count)] for _ in range(3))
    moments = {i: {"step": torch.tensor(1.0), "exp_avg": first[i], "exp_avg_sq": second[i]} for i in range(count)}
    return {
        "epoch": 0,
        "global_step": 1,
        "state_dict": {f"layers.{i}": weight for i, weight in enumerate(weights)},
        "optimizer_states": [{"state": moments, "param_groups": []}],
        "hyper_parameters": {"d_sae": 3072},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megabytes", type=int, default=200)
    parser.add_argument("--saves", type=int, default=8)
    parser.add_argument("--folder", default=None, help="on the disk to measure; the system's temporary folder")
    options = parser.parse_args()
    state, io = a_state(options.megabytes), AtomicCheckpointIO()
    x = torch.randn(512, 512)
    stalls: dict[bool, list[float]] = {False: [], True: []}
    finished = []
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        for _ in range(options.saves):
            for asynchronous in (False, True):
                begin = time.perf_counter()
                io.save_checkpoint(state, f"{folder}/step-00000001", SaveOptions({}, asynchronous))
                stalls[asynchronous].append(time.perf_counter() - begin)
                while io.writing:
                    x @ x
                io.drain()
                if asynchronous:
                    finished.append(time.perf_counter() - begin)
        io.teardown()
    # the first of each asks the system for memory
    at_once, asynchronous = (statistics.median(stalls[kind][1:]) for kind in (False, True))
    report = {
        **vars(options),
        "stall_ms": 1e3 * at_once,
        "asynchronous_stall_ms": 1e3 * asynchronous,
        "asynchronous_until_on_disk_ms": 1e3 * statistics.median(finished[1:]),
        "ratio": asynchronous / at_once,
    }
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
