"""The training step under the Trainer, logging, clipping, AuxK and dead counting on, beside the encoder's bare product,
other variants, and the rivals' own trainers.

    FULGURITE_PEERS_PYTHON=… python benchmarks/bench_sae_step.py [--batch 4096 --d_in 384 --d_sae 3072 --k 32]

Each runs in a process of its own and they take turns of a few steps, so that a machine that slows down slows all.
Prints a table on stderr and JSON: milliseconds are medians over the turns, a ratio's ends are its quartiles over them.
Without FULGURITE_PEERS_PYTHON, a Python with the extra `peers`, only ours run.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from safetensors.torch import save_file

from benchmarks.turns import Worker
from datamodules.shards import StoreWriter

FOLDER = Path(__file__).parent
OURS: dict[str, dict[str, Any]] = {
    "topk": {"variant": "TopK"},
    "topk_screened": {"variant": "TopK", "screening": True},
    "batch_topk": {"variant": "BatchTopK"},
    "matryoshka": {"variant": "MatryoshkaBatchTopK"},
    "hierarchical": {"variant": "HierarchicalTopK"},
    "gemm": {"variant": "gemm", "dtype": "float32"},
    "gemm_bfloat16": {"variant": "gemm", "dtype": "bfloat16"},
}
PEERS = ("saelens", "sparsify_adam")
RATIOS = [  # (of, over): how many times as many tokens/s
    ("topk", "saelens"),
    ("topk_screened", "saelens"),
    ("topk", "sparsify_adam"),
    ("topk_screened", "sparsify_adam"),
    ("topk", "gemm"),
    ("topk_screened", "gemm_bfloat16"),
    ("topk", "batch_topk"),
    ("topk", "matryoshka"),
    ("topk", "hierarchical"),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in {"batch": 4096, "d_in": 384, "d_sae": 3072, "k": 32, "turns": 12}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--only", nargs="*", help="names of those that run")
    options = parser.parse_args()
    sizes = {name: getattr(options, name) for name in ("batch", "d_in", "d_sae", "k")}
    with tempfile.TemporaryDirectory() as folder:
        x = rows(options.batch * 24, options.d_in)
        make_store(Path(folder) / "store", x)
        save_file({"rows": x}, Path(folder) / "rows.safetensors")
        workers = started(Path(folder), sizes, options.only)
        for _ in range(options.turns):
            for worker in workers:
                worker.turn()
        for worker in workers:
            worker.stop()
    report(options, {worker.name: worker for worker in workers})


def rows(count: int, d_in: int) -> torch.Tensor:
    """[count, d_in] that a dictionary of 4 d_in directions explains, so that selection meets realistic codes."""
    generator = torch.Generator().manual_seed(0)
    atoms = torch.nn.functional.normalize(torch.randn(4 * d_in, d_in, generator=generator), dim=1)
    parts = []
    for start in range(0, count, 8192):
        size = min(8192, count - start)
        active = torch.randint(0, 4 * d_in, (size, 24), generator=generator)
        parts.append((atoms[active] * torch.rand(size, 24, 1, generator=generator)).sum(dim=1))
    return torch.cat(parts)


def make_store(folder: Path, x: torch.Tensor) -> None:
    with StoreWriter(folder, {"layer": x.shape[1]}, "bfloat16") as writer:
        for start in range(0, len(x), 8192):
            part = x[start : start + 8192]
            place = torch.arange(start, start + len(part))
            writer.append({"layer": part}, place % 1000, place // 1000, place % 1000)
        writer.finish({"text": {}}, [f"document-{i}" for i in range(len(x) // 1000 + 1)])


def started(folder: Path, sizes: dict[str, int], only: list[str] | None) -> list[Worker]:
    """All workers, each warmed up and waiting."""
    ours = [sys.executable, str(FOLDER / "sae_step_worker.py"), str(folder / "store")]
    commands = {name: [*ours, json.dumps({**sizes, **settings})] for name, settings in OURS.items()}
    if python := os.environ.get("FULGURITE_PEERS_PYTHON"):
        steps = {"rows": str(folder / "rows.safetensors"), "steps": 1_000_000, "lr": 1e-3, "seed": 0}
        settings = folder / "settings.json"
        settings.write_text(json.dumps({**sizes, **steps, "output": str(folder / "weights.safetensors")}))
        script = str(FOLDER / "peers" / "time_topk.py")
        commands |= {name: [python, script, name, str(settings)] for name in PEERS}
    return [
        Worker(name, command, folder / f"{name}.log")
        for name, command in commands.items()
        if only is None or name in only
    ]


def report(options: argparse.Namespace, workers: dict[str, Worker]) -> None:
    milliseconds = {name: 1e3 * statistics.median(worker.seconds) for name, worker in workers.items()}
    print("| | ms | tokens/s | peak MB |\n| --- | --- | --- | --- |", file=sys.stderr)
    for name, ms in milliseconds.items():
        print(f"| {name} | {ms:.1f} | {1e3 * options.batch / ms:,.0f} | {workers[name].peak_mb:.0f} |", file=sys.stderr)
    ratios = {
        f"{of} / {over}": quartiles([b / a for a, b in zip(workers[of].seconds, workers[over].seconds, strict=True)])
        for of, over in RATIOS
        if of in workers and over in workers
    }
    for name, (low, middle, high) in ratios.items():
        print(f"{name}: {middle:.2f} ({low:.2f} to {high:.2f})", file=sys.stderr)
    peaks = {name: worker.peak_mb for name, worker in workers.items()}
    settings = {**vars(options), "threads": torch.get_num_threads()}
    print(json.dumps({**settings, "milliseconds": milliseconds, "ratios": ratios, "peak_mb": peaks}, indent=1))


def quartiles(values: list[float]) -> tuple[float, float, float]:
    low, middle, high = statistics.quantiles(values, n=4)
    return low, middle, high


if __name__ == "__main__":
    main()
