"""NDCG@10 of what the shipped embedding recipe and sentence-transformers make of the same triplets."""

from __future__ import annotations

import argparse
import io
import json
import os
import statistics
import subprocess
import sys
import time
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from backbones.sources import model_folder, quiet
from backbones.text_encoder import TextEncoder
from benchmarks.embedding import CodeSearch, recipe, trainer, triplets_in, write_triplets
from datamodules.contrastive_triplets import TripletDataModule
from lightning_modules.embedding_evaluation import EmbeddingEvaluation
from lightning_modules.functional import paired_bootstrap

SCRIPT = Path(__file__).parent / "peers" / "train_embedder.py"
BASE, OURS, PEER, SAME_TIME = "base", "fulgurite", "sentence_transformers", "fulgurite_same_time"
DIFFERENCES = [(OURS, BASE), (PEER, BASE), (OURS, PEER), (SAME_TIME, PEER)]
SCORE = "ndcg@10"
MOST = 6
"""Times as many triplets as the rival's that may be trained on in its time."""


class Trained(NamedTuple):
    """A model in a folder."""

    folder: Path
    seconds: float


def compare(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Scores of every seed, seconds of training, and paired differences; a table of them goes to stderr.

    Args:
        options: those of bench_embedder.
        folder: an empty one for data and models.
    """
    rows, more = folder / "rows.jsonl", folder / "more.jsonl"
    library = CodeSearch([])
    pool = list(library.take(MOST * options.triplets))
    write_triplets(rows, pool[: options.triplets])
    tasks = {
        "unseen modules": held_out(options, folder / "unseen", library),
        ", ".join(options.other): held_out(options, folder / "other", CodeSearch(options.other)),
    }
    scores: dict[str, list[dict[str, Tensor]]] = {BASE: [evaluated(options.model, tasks, options)]}
    seconds: dict[str, list[float]] = {}

    def add(name: str, seed: int, trained: Trained) -> Trained:
        scores.setdefault(name, []).append(evaluated(str(trained.folder), tasks, options))
        seconds.setdefault(name, []).append(trained.seconds)
        told = ", ".join(f"{task} {float(scores[name][-1][task].nanmean()):.4f}" for task in tasks)
        print(f"{name} seed {seed}: {told}; {trained.seconds:.0f} s", file=sys.stderr, flush=True)
        return trained

    count = 0
    for seed in range(options.seeds):
        here = folder / f"seed-{seed}"
        here.mkdir()
        ours = add(OURS, seed, train_ours(options, rows, here / OURS, seed))
        if python := os.environ.get("FULGURITE_PEERS_PYTHON"):
            peer = add(PEER, seed, train_peer(options, python, rows, here / PEER, seed))
            if not seed:  # the first decides, so that all seeds mean the same
                count = min(len(pool), int(options.triplets * peer.seconds / ours.seconds))
                write_triplets(more, pool[:count])
            if count > options.triplets:
                add(SAME_TIME, seed, train_ours(options, more, here / SAME_TIME, seed))
    return report(list(tasks), scores, seconds) | {"same_time_triplets": count}


def held_out(options: argparse.Namespace, folder: Path, source: CodeSearch) -> TripletDataModule:
    """Triplets that no model is trained on, tokenised as the base model wants them."""
    folder.mkdir()
    write_triplets(folder / "rows.jsonl", source.take(options.queries))
    data = triplets_in(folder / "rows.jsonl", folder / "cache", options.batch)
    data.tokenisations = saved_encoder(options.model, options).tokenisations()
    data.prepare_data()
    data.setup("test")
    return data


def saved_encoder(model: str, options: argparse.Namespace) -> TextEncoder:
    """A model as all are evaluated."""
    return TextEncoder(model, pooling="mean", normalize=True, max_length=options.max_length, precision="float32")


@torch.no_grad()
def evaluated(model: str, tasks: dict[str, TripletDataModule], options: argparse.Namespace) -> dict[str, Tensor]:
    """[queries] scores by task."""
    encoder = saved_encoder(model, options)
    encoder.build()
    encoder.eval()
    found = {}
    for name, data in tasks.items():
        evaluation = EmbeddingEvaluation(encoder.width)
        for batch in data.test_dataloader():
            evaluation.update(batch, encoder.encode(batch.texts))
        found[name] = evaluation.retrieval.per_query().scores[SCORE]
    return found


def train_ours(options: argparse.Namespace, rows: Path, output: Path, seed: int) -> Trained:
    """By the shipped recipe, for an epoch; reading and tokenising count."""
    torch.manual_seed(seed)
    model = recipe({"model": options.model, "max_length": options.max_length})
    data = triplets_in(rows, output / "cache", options.batch, seed)
    # stdout is for JSON alone, and callbacks tell there what they do
    with redirect_stdout(io.StringIO()):
        fit = trainer(output, max_epochs=1).fit
        started = time.perf_counter()
        fit(model, data)
        seconds = time.perf_counter() - started
    assert isinstance(model.encoder, TextEncoder)
    with quiet():
        model.encoder.plain_backbone().save_pretrained(output / "model")
    return Trained(output / "model", seconds)


def train_peer(options: argparse.Namespace, python: str, rows: Path, output: Path, seed: int) -> Trained:
    """In its default configuration."""
    output.mkdir()
    settings = {
        "model": str(model_folder(options.model, ())),
        "rows": str(rows),
        **{name: getattr(options, name) for name in ("batch", "max_length")},
        "bf16": False,
        "dropout": True,
        "seed": seed,
        "epochs": 1,
        "output": str(output / "model"),
        "seconds": str(output / "seconds"),
    }
    (output / "settings.json").write_text(json.dumps(settings))
    process = subprocess.run([python, str(SCRIPT), str(output / "settings.json")], capture_output=True, text=True)
    if process.returncode:
        raise RuntimeError(f"{PEER} failed: {process.stderr[-3000:]}")
    return Trained(output / "model", float((output / "seconds").read_text()))


def report(
    tasks: list[str], scores: dict[str, list[dict[str, Tensor]]], seconds: dict[str, list[float]]
) -> dict[str, Any]:
    """Means over the queries for every seed, and paired differences of their means over the seeds."""
    ndcg = {
        task: {name: [float(found[task].nanmean()) for found in seeds] for name, seeds in scores.items()}
        for task in tasks
    }
    print(f"| {SCORE} | {' | '.join(tasks)} | seconds |\n| --- |{' --- |' * len(tasks)} --- |", file=sys.stderr)
    for name in scores:
        cells = [f"{statistics.mean(ndcg[task][name]):.4f}" for task in tasks]
        took = f"{statistics.mean(seconds[name]):.0f}" if name in seconds else ""
        print(f"| {name} | {' | '.join(cells)} | {took} |", file=sys.stderr)
    differences: dict[str, dict[str, Any]] = {}
    for of, over in DIFFERENCES:
        if of not in scores or over not in scores:
            continue
        name = f"{of} − {over}"
        differences[name] = {task: difference(scores[of], scores[over], task) for task in tasks}
        cells = [f"{mean:+.4f} ({low:+.4f} to {high:+.4f})" for mean, low, high in differences[name].values()]
        print(f"| {name} | {' | '.join(cells)} | |", file=sys.stderr)
    return {"ndcg": ndcg, "differences": differences, "seconds": seconds}


def difference(of: list[dict[str, Tensor]], over: list[dict[str, Tensor]], task: str) -> tuple[float, float, float]:
    """Mean and 95% interval over queries of the difference between two models, each the mean over its seeds: seeds
    share their queries, which are therefore drawn once for all of them.
    """
    first, second = (torch.stack([found[task] for found in seeds]).mean(dim=0) for seeds in (of, over))
    return tuple(paired_bootstrap(first - second, seed=0))
