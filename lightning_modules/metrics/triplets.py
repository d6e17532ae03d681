"""How anchors score their positives and negatives, over a whole data set."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric

from lightning_modules.functional import alignment, triplet_cosines


class TripletScores(Metric):
    """Means over all examples seen:

        triplet_accuracy              share of (example, negative) pairs whose positive has the greater cosine
        triplet_accuracy_by_example   share of examples with negatives whose positive has a greater cosine than all
        positive_cosine, negative_cosine
        margin                        mean over (example, negative) pairs of positive − negative cosine
        alignment                     mean ‖a − p‖² of unit vectors

    An equal cosine is no win.
    """

    full_state_update = False
    is_differentiable = False

    examples: Tensor
    with_negatives: Tensor
    pairs: Tensor
    wins: Tensor
    clean_wins: Tensor
    positives: Tensor
    negatives: Tensor
    margins: Tensor
    distances: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("examples", "with_negatives", "pairs", "wins", "clean_wins"):
            self.add_state(name, torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")
        for name in ("positives", "negatives", "margins", "distances"):
            self.add_state(name, torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, texts: Tensor, anchors: Tensor, positives: Tensor, negatives: Tensor) -> None:
        """Takes in a batch.

        Args:
            texts: [u, d] embeddings, of any norm.
            anchors: [b] int64 places among the texts.
            positives: [b] int64 places.
            negatives: [b, n] int64 places; -1 where there is none.

        Raises:
            UserError: an embedding is not finite.
        """
        texts = texts.detach()
        cosines = triplet_cosines(texts, anchors, positives, negatives)
        wins, there = cosines.wins(), cosines.there
        judged = there.any(dim=1)
        self.examples += len(anchors)
        self.with_negatives += judged.sum()
        self.pairs += there.sum()
        self.wins += wins.sum()
        self.clean_wins += (judged & (wins | ~there).all(dim=1)).sum()
        self.positives += cosines.positives.sum(dtype=torch.float64)
        self.negatives += cosines.negatives[there].sum(dtype=torch.float64)
        self.margins += (cosines.positives[:, None] - cosines.negatives)[there].sum(dtype=torch.float64)
        self.distances += alignment(texts[anchors], texts[positives]).sum()

    def compute(self) -> dict[str, Tensor]:
        """Scalars by name; nan where nothing of the kind was seen."""
        scores = {
            "triplet_accuracy": self.wins / self.pairs,
            "triplet_accuracy_by_example": self.clean_wins / self.with_negatives,
            "positive_cosine": self.positives / self.examples,
            "negative_cosine": self.negatives / self.pairs,
            "margin": self.margins / self.pairs,
            "alignment": self.distances / self.examples,
        }
        return {name: value.float() for name, value in scores.items()}
