"""Triplet loss with semi-hard mining (Schroff et al. 2015, "FaceNet", arXiv 1503.03832) or batch-hard mining (Hermans
et al. 2017, "In Defense of the Triplet Loss", arXiv 1703.07737).

Shapes: b examples of this rank, n negatives of the one of all ranks that has most, m different documents of all ranks,
d width.
"""

from __future__ import annotations

from typing import Literal

import torch
from jsonargparse.typing import PositiveFloat
from torch import Tensor

from lightning_modules.functional import masked_row_means, unit
from lightning_modules.losses.base import ContrastiveLoss, EmbeddedBatch
from lightning_modules.losses.pool import Pool
from run_store import UserError

FARTHEST = 2
"""Between unit vectors, by either distance."""


class Triplet(ContrastiveLoss):
    """The mean over examples of the mean over their negatives of relu(d(a, p) − d(a, n) + margin).

    Distances are between unit vectors, since it is by their directions that texts are found. A text that is a positive
    of the same anchor in whatever example, or the anchor itself, is no negative; an example without negatives counts as
    0.

    The batch is that of all processes, and the gradient after DDP's averaging that of the mean over all their examples.

    Args:
        margin: how much farther than the positive a negative has to be.
        distance: `cosine`, 1 − cos(a, x), or `euclidean`, ‖a − x‖.
        mining: `given`: the negatives are the example's own. `batch_hard`: one, the nearest document of the batch.
            `semi_hard`: one, the nearest document of the batch that is farther than the positive, or where none is, the
            farthest.
        gather_negatives: whether the documents of all processes are the batch's, or those of each process alone.
    """

    def __init__(
        self,
        margin: PositiveFloat = 0.2,
        distance: Literal["cosine", "euclidean"] = "cosine",
        mining: Literal["given", "batch_hard", "semi_hard"] = "given",
        gather_negatives: bool = True,
    ) -> None:
        super().__init__()
        self.margin = float(margin)
        self.distance = distance
        self.mining = mining
        self.gather_negatives = gather_negatives

    def check_settings(self) -> None:
        super().check_settings()
        if self.margin >= FARTHEST:
            raise UserError(
                f"Triplet: margin is {self.margin}, and unit vectors are never more than {FARTHEST} apart, so that no "
                "negative would ever be far enough: set it lower; 0.2 is usual"
            )

    def of(self, batch: EmbeddedBatch) -> Tensor:
        pool = Pool.of(batch, self.gather_negatives)
        texts = unit(pool.batch.texts)
        documents = texts[pool.documents]
        anchors, positives = texts[pool.anchors], texts[pool.positives]
        negatives, is_one = self._negatives(pool, anchors.detach(), positives.detach(), documents.detach())
        near = self._distances(anchors, positives)
        far = self._distances(anchors.unsqueeze(1), documents[negatives])
        return masked_row_means((near.unsqueeze(1) - far + self.margin).relu(), is_one).sum() * pool.weight

    def _negatives(self, pool: Pool, anchors: Tensor, positives: Tensor, documents: Tensor) -> tuple[Tensor, Tensor]:
        """Which documents are the rows' negatives, and whether they are any: int64 and bool, [b, n] or [b, 1]."""
        never = pool.never_documents()
        if self.mining == "given":
            given = pool.negatives[pool.rows]
            there = given < len(documents)
            negatives = given.masked_fill(~there, 0)
            return negatives, there & ~never.gather(1, negatives)
        if not len(anchors):
            return never.new_zeros(0, 1, dtype=torch.int64), never.new_zeros(0, 1)
        # both distances fall with the cosine, so that it alone says which is nearer
        cosines = (anchors @ documents.T).masked_fill(never, -torch.inf)
        nearest = cosines.argmax(dim=1, keepdim=True)
        if self.mining == "semi_hard":
            farther = cosines.masked_fill(cosines >= (anchors * positives).sum(dim=1, keepdim=True), -torch.inf)
            some = farther.amax(dim=1, keepdim=True) > -torch.inf
            farthest = cosines.masked_fill(never, torch.inf).argmin(dim=1, keepdim=True)
            nearest = torch.where(some, farther.argmax(dim=1, keepdim=True), farthest)
        return nearest, ~never.gather(1, nearest)

    def _distances(self, x: Tensor, y: Tensor) -> Tensor:
        """Of unit vectors, over the last dimension."""
        if self.distance == "cosine":
            return 1 - (x * y).sum(dim=-1)
        # the difference, not 2 − 2 cos, which is all rounding where vectors are near; torch's norm has no gradient at 0
        distances: Tensor = torch.linalg.vector_norm(x - y, dim=-1)
        return distances
