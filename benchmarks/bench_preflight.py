"""What `fit --preflight` foresees of a job over what it then takes: wall time, peak memory, bytes on the disk.

    python benchmarks/bench_preflight.py [--only main stored --tokens 200000]

The jobs are the shipped ones on less text: `main` extracts and trains, `stored` trains on the store that is there then,
`resumed` is one that was killed in the middle, `sweep` has four autoencoders, `streamed` has no store, and `embedder`
fine-tunes. Each is a command of its own, as a person would type it, and one process. Memory is what that holds, files
that are mapped left out. Prints JSON; a ratio is foreseen / taken.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.training import parsed
from estimates.machine import held_by

PROJECT = Path(__file__).parents[1]
JOBS = ("main", "stored", "resumed", "sweep", "streamed", "embedder")
SECONDS_BETWEEN_LOOKS = 0.02


def settings(job: str, options: argparse.Namespace, folder: Path) -> list[str]:
    """The command line of a job after `fit`, all of whose files lie in `folder`."""
    runs = f"--run.folder={folder / 'runs' / job}"
    configs = PROJECT / "configs"
    if job == "embedder":
        limits = [f"--trainer.limit_train_batches={options.batches}", f"--data.cache={folder / 'triplets'}"]
        return [f"--config={configs / 'embedder.yaml'}", runs, *limits]
    text = f"--data.text.max_tokens={options.tokens}"
    if job == "streamed":
        limits = [f"--data.epoch_batches={options.epoch_batches}", "--data.held_out_tokens=40000"]
        held_out = f"--data.held_out={folder / 'held-out'}"
        return [f"--config={configs / 'sae_streamed.yaml'}", runs, text, held_out, *limits]
    overlay = [f"--config={configs / 'sweep' / 'k.yaml'}"] if job == "sweep" else []
    return [f"--config={configs / 'sae.yaml'}", *overlay, runs, text, f"--data.store={folder / 'store'}"]


def command(*arguments: str) -> list[str]:
    return [sys.executable, str(PROJECT / "main.py"), "fit", *arguments]


def taken(arguments: list[str], folder: Path) -> dict[str, Any]:
    """Seconds, bytes of memory and of new files that a job takes.

    Raises:
        subprocess.CalledProcessError: it fails.
    """
    before, peak = bytes_below(folder), 0
    started = time.perf_counter()
    process = subprocess.Popen(command(*arguments), cwd=folder, stdout=subprocess.DEVNULL)
    while process.poll() is None:
        peak = max(peak, held_by(process.pid))
        time.sleep(SECONDS_BETWEEN_LOOKS)
    seconds = time.perf_counter() - started
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, "fit")
    return {"seconds": seconds, "host_bytes": peak, "disk_bytes": bytes_below(folder) - before}


def foreseen(arguments: list[str], folder: Path) -> dict[str, Any]:
    """What preflight says of it, and how long that took.

    Raises:
        subprocess.CalledProcessError: it is refused.
    """
    started = time.perf_counter()
    call = command(*arguments, "--preflight", "--json", "-")
    told = subprocess.run(call, cwd=folder, check=True, capture_output=True, text=True).stdout
    return {**json.loads(told), "took": time.perf_counter() - started}


def killed_in_the_middle(arguments: list[str], folder: Path) -> None:
    """Begins a job and kills it after its first checkpoint."""
    process = subprocess.Popen(
        command(*arguments, "--trainer.callbacks.every_n_steps=50"), cwd=folder, stdout=subprocess.DEVNULL
    )
    while process.poll() is None and not list(folder.glob("runs/resumed/*/*/*/checkpoints/step-*/manifest.json")):
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()


def bytes_below(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def compared(job: str, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """A job's figures, foreseen and taken, and their ratios."""
    arguments = settings("main" if job == "stored" else job, options, folder)
    if job == "stored":
        arguments += ["--run.mode=force_new"]
    if job == "resumed":
        killed_in_the_middle(arguments, folder)
        arguments += ["--trainer.callbacks.every_n_steps=50"]
    said = foreseen(arguments, folder)
    found = taken(arguments, folder)
    ratios = {name: said[name] / found[name] for name in found}
    print(job, {name: round(ratio, 2) for name, ratio in ratios.items()}, file=sys.stderr, flush=True)
    return {"foreseen": said, "taken": found, "ratios": ratios}


def main() -> None:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in {"tokens": 200_000, "batches": 40, "epoch_batches": 60}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--only", nargs="+", choices=JOBS, default=list(JOBS))
    parser.add_argument("--folder", default=None, help="kept, so that a later call finds the stores; a temporary one")
    options = parsed(parser, {"tokens": 60_000, "batches": 8, "epoch_batches": 20, "only": ["main"]})
    with tempfile.TemporaryDirectory() as name:
        folder = Path(options.folder or name)
        folder.mkdir(parents=True, exist_ok=True)
        jobs = {job: compared(job, options, folder) for job in JOBS if job in options.only}
    print(json.dumps({**vars(options), "jobs": jobs}, indent=1))


if __name__ == "__main__":
    main()
