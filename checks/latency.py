"""How long a text, a batch of texts and a step take."""

from __future__ import annotations

from collections.abc import Callable
from statistics import fmean
from time import perf_counter

import torch

from backbones.encoder import Encoder
from checks.limits import Limits
from checks.snippets import SNIPPETS, Reader, device_of
from checks.trained_copy import MakeOptimizer, TrainedCopy
from checks.verdict import Figure, Verdict
from datamodules.triplets import TripletBatch
from lightning_modules.losses import ContrastiveLoss

WARM_UP = 3
ITERATIONS = 10
TRIPLETS = 8
TEXTS = 40


def check_latency(
    encoder: Encoder, loss: ContrastiveLoss, make_optimizer: MakeOptimizer, batch: TripletBatch, limits: Limits
) -> Verdict:
    """Measures a built encoder: from a text to its embedding, tokenising too; the same for a batch of texts; and
    forward, backward and optimiser on a batch of triplets, by a copy.
    """
    device, reader, texts = device_of(encoder), Reader(encoder), list(SNIPPETS.values())

    @torch.no_grad()
    def embed(some: list[str]) -> None:
        encoder.encode(reader(some, device))

    encoder.eval()
    single = _milliseconds(lambda: embed(texts[:1]), device)
    many = (texts * TEXTS)[:TEXTS]
    whole = _milliseconds(lambda: embed(many), device)
    steps = _milliseconds(TrainedCopy(encoder, loss, make_optimizer, batch).step, device)
    rate = 1000 * TEXTS / fmean(whole)
    figures = [
        Figure("single text, mean", fmean(single), "ms", at_most=limits.single_ms, setting="limits.single_ms"),
        Figure("single text, min", min(single), "ms"),
        Figure("single text, max", max(single), "ms"),
        Figure(
            f"throughput, {TEXTS} texts",
            rate,
            "/s",
            at_least=limits.texts_per_second,
            setting="limits.texts_per_second",
        ),
        Figure(
            f"step on {len(batch.examples)} triplets, mean",
            fmean(steps),
            "ms",
            at_most=limits.gradient_ms,
            setting="limits.gradient_ms",
        ),
        Figure(f"step on {len(batch.examples)} triplets, min", min(steps), "ms"),
        Figure(f"step on {len(batch.examples)} triplets, max", max(steps), "ms"),
        Figure("device", str(device)),
    ]
    return Verdict.of("latency", figures)


def _milliseconds(work: Callable[[], None], device: torch.device) -> list[float]:
    """Of each iteration behind the warm-up."""
    taken = []
    for iteration in range(WARM_UP + ITERATIONS):
        _wait_for(device)
        start = perf_counter()
        work()
        _wait_for(device)
        if iteration >= WARM_UP:
            taken.append(1000 * (perf_counter() - start))
    return taken


def _wait_for(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
