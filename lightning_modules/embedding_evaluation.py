"""What validation and test say of an embedding model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from datamodules.triplets import TripletBatch
from lightning_modules.functional import ScoreSpace, triplet_cosines
from lightning_modules.metrics import EmbeddingGeometry, Retrieval, TripletScores

KEPT_SIMILARITIES = 100_000


class ShownEmbeddings(NamedTuple):
    """Embeddings of n texts, with what is shown of each."""

    embeddings: Tensor
    """[n, d], of any norm."""
    texts: Sequence[str]
    """n texts."""
    roles: Sequence[str]
    """n words to colour by, such as anchor, positive and negative."""


class Similarities(NamedTuple):
    """Scores that a validation has given."""

    positives: Tensor
    """Of anchors with their positives, of any shape."""
    negatives: Tensor
    """Of anchors with their negatives, of any shape."""


class EmbeddingEvaluation(nn.Module):
    """Metrics over every example of a split.

    Args:
        width: d of the embeddings.
        spaces: what else they are scored in, by name.
    """

    def __init__(self, width: int, spaces: Mapping[str, ScoreSpace] | None = None) -> None:
        super().__init__()
        self.retrieval = Retrieval(width, spaces, exclude_own=True)
        self.triplets = TripletScores()
        self.geometry = EmbeddingGeometry(width)
        self.positives: list[Tensor] = []
        self.negatives: list[Tensor] = []
        self._kept = 0

    def update(self, batch: TripletBatch, texts: Tensor) -> None:
        """Takes in a batch with the embeddings [u, d] of its texts.

        Raises:
            UserError: an embedding is not finite.
        """
        there = batch.negatives[batch.negatives >= 0]
        queries, documents = torch.unique(batch.anchors), torch.unique(torch.cat([batch.positives, there]))
        pairs = torch.stack([batch.ids[batch.anchors], batch.ids[batch.positives]], dim=1)
        self.retrieval.update(texts[queries], batch.ids[queries], texts[documents], batch.ids[documents], pairs)
        self.triplets.update(texts, batch.anchors, batch.positives, batch.negatives)
        self.geometry.update(texts, batch.ids)
        self._keep_similarities(batch, texts)

    def _keep_similarities(self, batch: TripletBatch, texts: Tensor) -> None:
        if self._kept >= KEPT_SIMILARITIES:
            return
        cosines = triplet_cosines(texts, batch.anchors, batch.positives, batch.negatives)
        self.positives.append(cosines.positives.cpu())
        self.negatives.append(cosines.negatives[cosines.there].cpu())
        self._kept += cosines.negatives.numel() + len(cosines.positives)

    def scores(self) -> dict[str, Tensor]:
        """Scalars by name over the examples since the last time; the metrics begin anew. What needs negatives is left
        out where there are none.
        """
        scores = {**self.retrieval.compute(), **self.triplets.compute(), **self.geometry.compute()}
        for metric in (self.retrieval, self.triplets, self.geometry):
            metric.reset()
        return {name: value for name, value in scores.items() if not value.isnan()}

    def similarities(self) -> Similarities:
        """Cosines since `begin`, up to a bound; empty at first."""
        return Similarities(*(torch.cat(part) if part else torch.empty(0) for part in (self.positives, self.negatives)))

    def begin(self) -> None:
        """To be called before the first batch."""
        self.positives, self.negatives, self._kept = [], [], 0
