"""What a model makes of a few fixed samples, as a person wants to read it: what is asked of a LightningModule."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable


@dataclass(frozen=True)
class Sample:
    """A text whose predictions are compared from moment to moment.

    Attributes:
        index: its number among the samples of a run.
        prompt: the text.
        ground_truth: what a good prediction would be; None where nobody knows.
    """

    index: int
    prompt: str
    ground_truth: str | None = None


@dataclass(frozen=True)
class Answer:
    """What a model, or one member of a sweep, makes of a sample now.

    Attributes:
        sample: the sample.
        prediction: as JSON; its `kind` says what else it holds.
        scores: numbers by name.
        shown: what a reader is shown of it: by their heads, lines as they are and not escaped.
        member: of a sweep; empty for a model without members.
    """

    sample: Sample
    prediction: Mapping[str, Any]
    scores: Mapping[str, float]
    shown: Mapping[str, Sequence[str]] = field(default_factory=dict)
    member: str = ""


@dataclass(frozen=True)
class AnswerSettings:
    """How much is told of a sample.

    Attributes:
        top_k: texts that an embedding model retrieves, or latents of a token.
        text_tokens: tokens of a text that a sparse autoencoder is shown on, at most.
        continuation_tokens: tokens by which a causal language model goes on.
    """

    top_k: int = 5
    text_tokens: int = 64
    continuation_tokens: int = 20


class Predictor(Protocol):
    """Answers for one model on fixed samples; made before the first step, asked at every moment."""

    def answers(self) -> list[Answer]:
        """What the model as it is now makes of the samples, in evaluation mode and without a gradient. Nothing of the
        training is changed.

        Raises:
            UserError: it gives numbers that are not finite, say.
        """


@runtime_checkable
class Predicts(Protocol):
    """What a LightningModule must have for its predictions to be told."""

    def predictor(self, samples: Sequence[Sample] | None, count: int, seed: int, settings: AnswerSettings) -> Predictor:
        """What answers for it.

        Args:
            samples: the texts; None takes `count` of the validation set, which `seed` draws.
            count: how many.
            seed: the same seed and data give the same samples.
            settings: how much is told.

        Raises:
            UserError: the data has no text to read.
        """


def drawn(total: int, count: int, seed: int) -> list[int]:
    """At most `count` different numbers below `total`, ascending; no generator of the training is touched."""
    return sorted(random.Random(seed).sample(range(total), min(total, count)))
