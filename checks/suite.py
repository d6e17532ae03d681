"""All parts, or some, over one model."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Literal, NamedTuple

import torch

from backbones.encoder import Encoder
from checks import convergence, latency
from checks.convergence import check_convergence
from checks.few_triplets import FirstExamples, few_triplets
from checks.latency import check_latency
from checks.limits import Limits
from checks.loading import check_loading, fault_in_building
from checks.quality import check_quality
from checks.trained_copy import MakeOptimizer
from checks.verdict import Verdict
from datamodules.contrastive_triplets import TripletDataModule
from datamodules.triplets import TripletBatch
from lightning_modules.losses import ContrastiveLoss

Part = Literal["loading", "quality", "convergence", "latency"]
PARTS: tuple[Part, ...] = ("loading", "quality", "convergence", "latency")
TRIPLETS: dict[Part, int] = {"convergence": convergence.TRIPLETS, "latency": latency.TRIPLETS}
"""That a part trains on."""


class Subject(NamedTuple):
    """What is checked."""

    encoder: Encoder
    """Not built yet, so that its loading can be seen."""
    loss: ContrastiveLoss
    make_optimizer: MakeOptimizer
    data: TripletDataModule


def carry_out(subject: Subject, limits: Limits, only: Collection[Part], device: torch.device) -> list[Verdict]:
    """Carries out the parts that are asked for, in the order of `PARTS`.

    Where a model cannot be loaded, `loading` says why, and the others are not run.

    Raises:
        UserError: the data cannot be read or are too few, or a setting of the loss makes no sense.
    """
    encoder, loss, make_optimizer, data = subject
    loss.check_settings()
    needed = max((TRIPLETS.get(part, 0) for part in only), default=0)
    # read first: a mistake in the data should not come up after a model was loaded and measured
    examples = FirstExamples(data.source, needed)
    verdicts = [check_loading(encoder, limits)] if "loading" in only else []
    fault = fault_in_building(encoder)
    encoder.to(device)

    def batch_of(part: Part) -> TripletBatch:
        return few_triplets(examples, data, encoder.tokenisations(), TRIPLETS[part])

    parts: dict[Part, Callable[[], Verdict]] = {
        "quality": lambda: check_quality(encoder, limits),
        "convergence": lambda: check_convergence(encoder, loss, make_optimizer, batch_of("convergence"), limits),
        "latency": lambda: check_latency(encoder, loss, make_optimizer, batch_of("latency"), limits),
    }
    asked = [(name, check) for name, check in parts.items() if name in only]
    return verdicts + [check() if fault is None else Verdict.not_run(name, fault) for name, check in asked]
