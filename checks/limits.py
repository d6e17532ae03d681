"""What the figures of the checks are held against."""

from __future__ import annotations

from dataclasses import dataclass

from jsonargparse.typing import ClosedUnitInterval, NonNegativeFloat, PositiveFloat, PositiveInt


@dataclass(frozen=True)
class Limits:
    """Limits of the checks.

    Attributes:
        load_seconds: The most that loading one model, with its tokenizer, may take.
        min_tensors: The fewest tensors of a model.
        norm_error: How far the norm of an embedding may be from 1 where the encoder normalises.
        loss_fall: The share of the loss that training must take away, at least.
        convergence_seconds: The most that this training may take.
        single_ms: The most milliseconds from one text to its embedding, on average.
        texts_per_second: The fewest texts of a batch that are embedded in a second.
        gradient_ms: The most milliseconds of a step on a batch of triplets, on average.
    """

    load_seconds: PositiveFloat = 5.0
    min_tensors: PositiveInt = 101
    norm_error: PositiveFloat = 1e-5
    loss_fall: ClosedUnitInterval = 0.2
    convergence_seconds: PositiveFloat = 30.0
    single_ms: PositiveFloat = 50.0
    texts_per_second: NonNegativeFloat = 0.0
    gradient_ms: PositiveFloat = 200.0
