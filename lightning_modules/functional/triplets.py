"""How anchors score their positives and negatives.

Shapes: b examples, n negatives of the one that has most, u different texts among them, d width.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lightning_modules.functional.score_spaces import refuse_non_finite, unit_rows


class TripletCosines(NamedTuple):
    """Cosines of b anchors."""

    positives: Tensor
    """[b]."""
    negatives: Tensor
    """[b, n]; of no meaning where there is no negative."""
    there: Tensor
    """[b, n] bool, whether there is one."""

    def wins(self) -> Tensor:
        """[b, n] bool: the positive is more like the anchor than the negative; an equal score is no win."""
        return self.there & (self.positives[:, None] > self.negatives)


def triplet_cosines(texts: Tensor, anchors: Tensor, positives: Tensor, negatives: Tensor) -> TripletCosines:
    """Cosines within each example.

    Args:
        texts: [u, d] embeddings, of any norm.
        anchors: [b] int64 places among the texts.
        positives: [b] int64 places.
        negatives: [b, n] int64 places; -1 where there is none.

    Raises:
        UserError: an embedding is not finite.
    """
    refuse_non_finite(texts, "triplets")
    x = unit_rows(texts)
    candidates = torch.cat([positives[:, None], negatives], dim=1)
    # each by itself: a matrix product may round equal texts differently in different columns
    cosines = (x[anchors, None] * x[candidates.clamp(min=0)]).sum(dim=2)
    return TripletCosines(cosines[:, 0], cosines[:, 1:], negatives >= 0)
