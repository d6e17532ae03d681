"""Whether the loss falls when a model is trained on a handful of triplets."""

from __future__ import annotations

from itertools import pairwise
from time import perf_counter

from backbones.encoder import Encoder
from checks.limits import Limits
from checks.trained_copy import MakeOptimizer, TrainedCopy
from checks.verdict import Figure, Verdict
from datamodules.triplets import TripletBatch
from lightning_modules.losses import ContrastiveLoss

TRIPLETS = 5
EPOCHS = 3
NO_LOSS = 1e-6
"""What float32 leaves of a loss of zero."""


def check_convergence(
    encoder: Encoder, loss: ContrastiveLoss, make_optimizer: MakeOptimizer, batch: TripletBatch, limits: Limits
) -> Verdict:
    """Trains a copy of a built encoder for three epochs, a step each, and measures the loss before and after each."""
    start = perf_counter()
    trained = TrainedCopy(encoder, loss, make_optimizer, batch)
    losses = [trained.measure()]
    for _ in range(EPOCHS):
        trained.step()
        losses.append(trained.measure())
    return verdict_on(losses, perf_counter() - start, limits)


def verdict_on(losses: list[float], seconds: float, limits: Limits) -> Verdict:
    """What is to be said of the losses, the first of which is that before training."""
    figures = [Figure("loss before training", losses[0])]
    figures += [Figure(f"loss after epoch {epoch}", value) for epoch, value in enumerate(losses) if epoch]
    figures.append(
        Figure("training", seconds, "s", at_most=limits.convergence_seconds, setting="limits.convergence_seconds")
    )
    if losses[0] <= NO_LOSS:
        failure = f"the loss is {losses[0]:.3g} before training and cannot fall: these triplets are told apart already"
        return Verdict.of("convergence", figures, [failure])
    fall = (losses[0] - losses[-1]) / losses[0]
    figures.append(Figure("share the loss fell by", fall, at_least=limits.loss_fall, setting="limits.loss_fall"))
    failures = [
        f"the loss did not fall in epoch {epoch}: {before:.4g}, then {after:.4g}"
        for epoch, (before, after) in enumerate(pairwise(losses), start=1)
        # what has nothing left to lose has converged
        if not (after < before or before <= NO_LOSS)
    ]
    return Verdict.of("convergence", figures, failures)
