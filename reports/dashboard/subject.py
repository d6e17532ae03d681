"""What a dashboard is about: an autoencoder, where it is from, and what was gathered of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from datamodules.shards import ActivationStore
from features import Facts
from reports.training_curves import Curve


@dataclass(frozen=True)
class SpokenFor:
    """What latents speak for through the unembedding, the strongest tokens first: [s, n] each.

    Attributes:
        promoted, suppressed: token ids.
        promoted_scores, suppressed_scores: of a unit of the latent's direction.
    """

    promoted: Tensor
    promoted_scores: Tensor
    suppressed: Tensor
    suppressed_scores: Tensor


@dataclass(frozen=True)
class Subject:
    """Attributes:
    name: of the run, and its member.
    about: of the model and where it is from, in words, by what they answer.
    scores: measured in the pass, and `val/…` measured in training, by name.
    facts: of its latents.
    text_of: the text of a token id, with the space before it.
    texts_of: of token ids that follow each other.
    store: where the rows of the contexts are.
    curves: of the training.
    spoken_for: through the unembedding; where there is none, why, in a sentence.
    strongest, sampled: contexts shown of a latent, from the top and from its whole range.
    """

    name: str
    about: Mapping[str, str]
    scores: Mapping[str, float]
    facts: Facts
    text_of: Callable[[int], str]
    texts_of: Callable[[Sequence[int]], list[str]]
    store: ActivationStore
    curves: Sequence[Curve] = ()
    spoken_for: SpokenFor | str = ""
    strongest: int = 12
    sampled: int = 8
    labels: list[str] = field(init=False)

    def __post_init__(self) -> None:
        words = [label.words(self.text_of) for label in self.facts.labels]
        object.__setattr__(self, "labels", words)
