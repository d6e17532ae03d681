"""A step of a sweep of K TopK autoencoders against a step of each alone, under the Trainer.

    python benchmarks/bench_sweep.py [--batch 4096 --d_in 384 --d_sae 3072 --k 16 32 64 128 --steps 15 --rounds 4]

Trainings of a few steps are timed in turns in one process, so that a machine that slows down slows all. Prints JSON;
`ratio` is the sweep's step over the mean of the single ones: what K autoencoders cost in single runs.
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

from lightning.pytorch import Callback

from benchmarks.bench_sae_step import make_store, rows
from benchmarks.training import fit, parsed, silence
from cli.allocator import keep_freed_memory
from datamodules.activations import ActivationDataModule
from lightning_modules.autoencoders import TopK
from lightning_modules.members import Member
from lightning_modules.sparse_autoencoding import SparseAutoencoding

SETTLED = 3
"""Steps that are not timed at the start of each training."""


class Steps(Callback):
    """Times every optimiser step."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_train_batch_end(self, *_: Any) -> None:
        self.ends.append(time.perf_counter())

    def seconds(self) -> list[float]:
        """Of each step that counts."""
        return [end - begin for begin, end in zip(self.ends[SETTLED:], self.ends[SETTLED + 1 :], strict=False)]


def timed(model: SparseAutoencoding, data: ActivationDataModule, steps: int) -> list[float]:
    """Seconds of each step of a training."""
    clock = Steps()
    fit(model, data, steps, [clock], clip=1.0)
    return clock.seconds()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in {"batch": 4096, "d_in": 384, "d_sae": 3072, "steps": 15, "rounds": 4}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--k", type=int, nargs="+", default=[16, 32, 64, 128])
    quick = {"batch": 64, "d_in": 16, "d_sae": 32, "k": [2, 4], "steps": 6, "rounds": 1}
    options = parsed(parser, quick)
    silence()
    keep_freed_memory()
    seconds: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        make_store(Path(folder) / "store", rows(options.batch * (options.steps + 1), options.d_in))
        data = ActivationDataModule(
            f"{folder}/store", batch_size=options.batch, validation_share=0.0, test_share=0.0, verify=False
        )
        for _ in range(options.rounds):
            for place, k in enumerate(options.k):
                alone = SparseAutoencoding(TopK(options.d_sae, k))
                seconds.setdefault(f"{place}: k {k}", []).extend(timed(alone, data, options.steps))
            members = {f"m{place}": Member(TopK(options.d_sae, k)) for place, k in enumerate(options.k)}
            sweep = SparseAutoencoding(TopK(options.d_sae), members=members)
            seconds.setdefault("sweep", []).extend(timed(sweep, data, options.steps))
    step = {name: statistics.median(values) for name, values in seconds.items()}
    single = statistics.mean(value for name, value in step.items() if name != "sweep")
    report = {
        **vars(options),
        "step_ms": {name: 1e3 * value for name, value in step.items()},
        "ratio": step["sweep"] / single,
    }
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
