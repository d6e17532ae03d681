"""How the embeddings of a data set lie on the unit sphere."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from lightning_modules.functional import (
    effective_rank,
    first_occurrences,
    mean_pairwise_cosine,
    refuse_non_finite,
    uniformity,
)


class EmbeddingGeometry(Metric):
    """Scores of a sample of different texts:

        uniformity, effective_rank   see the functions of these names
        mean_cosine                  of two different texts
        norm, norm_spread            mean and standard deviation of the norms, before they are scaled to 1

    The sample is drawn by id, those with the least hashes: the same texts at every validation, whatever the batches
    and ranks that bring them, and never more in memory than are wanted.

    Args:
        d: width of the embeddings.
        texts: how many are in the sample; the effective rank is not above it, and means little unless it is some times
            d.
    """

    full_state_update = False
    is_differentiable = False

    embeddings: list[Tensor]
    ids: list[Tensor]

    def __init__(self, d: int, texts: int = 4096) -> None:
        super().__init__()
        self.d = d
        self.texts = texts
        self.add_state("embeddings", [], dist_reduce_fx="cat")
        self.add_state("ids", [], dist_reduce_fx="cat")
        self._start()

    def reset(self) -> None:
        super().reset()
        self._start()

    def _start(self) -> None:
        """A rank that sees no batch must still hold tensors of the shape and type that the others send."""
        self.embeddings = [torch.empty(0, self.d, device=self.device)]
        self.ids = [torch.empty(0, dtype=torch.int64, device=self.device)]

    def update(self, embeddings: Tensor, ids: Tensor) -> None:
        """Takes in a batch.

        Args:
            embeddings: [b, d], of any norm.
            ids: [b] int64, of the texts; one may come more than once.

        Raises:
            UserError: an embedding is not finite.
        """
        refuse_non_finite(embeddings, "texts")
        both = [*self.embeddings, embeddings.detach().float()], [*self.ids, ids]
        sample, sample_ids = self._sample(*(torch.cat(part) for part in both))
        self.embeddings, self.ids = [sample], [sample_ids]

    def compute(self) -> dict[str, Tensor]:
        """Scalars by name; nan where too few texts were seen."""
        sample, _ = self._sample(dim_zero_cat(self.embeddings), dim_zero_cat(self.ids))
        norms = sample.norm(dim=1).double()
        scores = {
            "uniformity": uniformity(sample),
            "effective_rank": effective_rank(sample),
            "mean_cosine": mean_pairwise_cosine(sample),
            "norm": norms.mean(),
            "norm_spread": (norms - norms.mean()).square().mean().sqrt(),
        }
        return {name: value.float() for name, value in scores.items()}

    def _sample(self, embeddings: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
        first, _ = first_occurrences(scattered(ids))
        return embeddings[first[: self.texts]], ids[first[: self.texts]]


def scattered(ids: Tensor) -> Tensor:
    """int64 → int64, one to one and without order: the finaliser of splitmix64."""
    mixed = (ids ^ (ids >> 30 & (1 << 34) - 1)) * (0xBF58476D1CE4E5B9 - (1 << 64))
    mixed = (mixed ^ (mixed >> 27 & (1 << 37) - 1)) * (0x94D049BB133111EB - (1 << 64))
    return mixed ^ (mixed >> 31 & (1 << 33) - 1)
