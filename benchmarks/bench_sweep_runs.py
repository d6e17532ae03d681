"""What a sweep of K TopK autoencoders costs in single runs of the main job, as commands from the shell: start, reading,
start values, training, validation, checkpoints.

    python benchmarks/bench_sweep_runs.py [--tokens 1130000 --k 16 32 64 128 --rounds 1]

The first run extracts the activations; what it takes longer than the same run afterwards is told apart.
Prints JSON; `ratio` is the sweep's seconds over the mean of the single runs' with the store there, and
`ratio_with_extraction` where each run extracts for itself. A step alone is in bench_sweep.py.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.training import parsed

PROJECT = Path(__file__).parents[1]


def fit(options: argparse.Namespace, folder: Path, *settings: str) -> float:
    """Seconds that the main job takes, as a run of its own.

    Raises:
        subprocess.CalledProcessError: it fails.
    """
    data = f"--data.store={folder / 'store'}", f"--data.text.max_tokens={options.tokens}"
    config = str(PROJECT / "configs" / "sae.yaml")
    call = [sys.executable, str(PROJECT / "main.py"), "fit", "--config", config, "--run.mode=force_new"]
    started = time.perf_counter()
    subprocess.run([*call, *data, *settings], check=True, cwd=folder, capture_output=True)
    return time.perf_counter() - started


def members(options: argparse.Namespace) -> str:
    """The sweep's setting as JSON, which the command line takes."""
    return json.dumps({f"k{k}": {"autoencoder": topk(options, k)} for k in options.k})


def alone(options: argparse.Namespace, k: int) -> str:
    """The setting of a single run."""
    return f"--model.autoencoder={json.dumps(topk(options, k))}"


def topk(options: argparse.Namespace, k: int) -> dict[str, object]:
    return {"class_path": "TopK", "init_args": {"d_sae": options.d_sae, "k": k}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in {"tokens": 1_130_000, "d_sae": 3072, "rounds": 1}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--k", type=int, nargs="+", default=[16, 32, 64, 128])
    options = parsed(parser, {"tokens": 40_000, "d_sae": 64, "k": [2, 4]})
    seconds: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        first = fit(options, folder, alone(options, options.k[0]))
        for _ in range(options.rounds):
            for k in options.k:
                seconds.setdefault(f"k {k}", []).append(fit(options, folder, alone(options, k)))
            together = f"--model.members={members(options)}"
            seconds.setdefault("sweep", []).append(fit(options, folder, together))
    took = {name: statistics.median(values) for name, values in seconds.items()}
    extraction = first - took[f"k {options.k[0]}"]
    single = statistics.mean(value for name, value in took.items() if name != "sweep")
    report = {
        **vars(options),
        "seconds": took,
        "extraction_seconds": extraction,
        "ratio": took["sweep"] / single,
        "ratio_with_extraction": (extraction + took["sweep"]) / (extraction + single),
    }
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
