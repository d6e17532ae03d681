"""CoSENT (Su 2022, kexue.fm/archives/8847): scored pairs in their order."""

from __future__ import annotations

from jsonargparse.typing import PositiveFloat
from torch import Tensor

from lightning_modules.functional import order_loss, unit
from lightning_modules.losses.base import ContrastiveLoss, EmbeddedBatch
from lightning_modules.losses.scores import of_all_ranks, scores_of


class CoSENT(ContrastiveLoss):
    """log(1 + Σ exp((s_i − s_j) / τ)) over all pairs i, j of the batch with score i < score j, where s is the
    cosine of anchor and positive. It is no mean over examples: it grows with their number. Scores are [b], on any
    scale, since only their order counts.

    Args:
        temperature: τ.
        gather_pairs: whether the pairs of all processes are compared, or those of each process alone.
    """

    def __init__(self, temperature: PositiveFloat = 0.05, gather_pairs: bool = True) -> None:
        super().__init__()
        self.temperature = float(temperature)
        self.gather_pairs = gather_pairs

    def of(self, batch: EmbeddedBatch) -> Tensor:
        scores = scores_of(batch, self, teacher=False)
        texts = unit(batch.texts)
        cosines = (texts[batch.anchors] * texts[batch.positives]).sum(dim=1)
        if self.gather_pairs:
            cosines, scores = of_all_ranks(cosines, scores)
        return order_loss(cosines, scores, self.temperature)
