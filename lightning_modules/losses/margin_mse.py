"""MarginMSE (Hofstätter et al. 2020, "Improving Efficient Neural Ranking Models with Cross-Architecture Knowledge
Distillation", arXiv 2010.02666).

Shapes: b examples, n negatives of the one that has most.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from lightning_modules.functional import masked_row_means, unit
from lightning_modules.losses.base import ContrastiveLoss, EmbeddedBatch
from lightning_modules.losses.scores import scores_of


class MarginMSE(ContrastiveLoss):
    """The mean over examples of the mean over their negatives of ((s_p − s_n) − (t_p − t_n))², where t are a teacher's
    scores, [b, 1 + n].

    The positive's own text among the negatives is none; an example without negatives counts as 0. What the teacher says
    where there is no negative is not looked at.

    Args:
        similarity: s of anchor and document: `dot`, as published, which can come to any margin; or `cosine`, for a
            teacher whose scores are cosines.
    """

    def __init__(self, similarity: Literal["dot", "cosine"] = "dot") -> None:
        super().__init__()
        self.similarity = similarity

    def of(self, batch: EmbeddedBatch) -> Tensor:
        scores = scores_of(batch, self, teacher=True).to(batch.texts.dtype)
        texts = unit(batch.texts) if self.similarity == "cosine" else batch.texts
        anchors = texts[batch.anchors]
        there = batch.negatives >= 0
        negatives = batch.negatives.masked_fill(~there, 0)
        is_one = there & (batch.ids[negatives] != batch.ids[batch.positives].unsqueeze(1))
        positive = (anchors * texts[batch.positives]).sum(dim=1, keepdim=True)
        margins = positive - (anchors.unsqueeze(1) * texts[negatives]).sum(dim=2)
        wanted = (scores[:, :1] - scores[:, 1:]).masked_fill(~is_one, 0)
        return masked_row_means((margins - wanted).square(), is_one).sum() / max(len(anchors), 1)
