"""AnglE (Li & Li 2023, arXiv 2309.12871): scored pairs in the order of their angles in complex space."""

from __future__ import annotations

from jsonargparse.typing import PositiveFloat
from torch import Tensor

from lightning_modules.functional import order_loss, unit
from lightning_modules.losses.base import ContrastiveLoss, EmbeddedBatch
from lightning_modules.losses.scores import of_all_ranks, scores_of
from run_store import UserError


class AnglE(ContrastiveLoss):
    """As `CoSENT`, with an s that does not flatten where the cosine does.

    The halves of an embedding are the real and the imaginary parts of d/2 complex numbers; s is what real and imaginary
    parts of the quotients anchor / positive add up to, at unit length and without sign:

        s = |Σ_k Re(a_k p̄_k) + Im(a_k p̄_k)| / (‖a‖ ‖p‖)

    Of the paper's objective this is the part on angles.

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
        width = batch.texts.shape[1]
        if width % 2:
            raise UserError(f"AnglE halves embeddings, and these have {width} dimensions: take another loss")
        texts = unit(batch.texts)
        a, b = texts[batch.anchors].chunk(2, dim=1)
        c, d = texts[batch.positives].chunk(2, dim=1)
        real, imaginary = a * c + b * d, b * c - a * d
        similarities = (real + imaginary).sum(dim=1).abs()
        if self.gather_pairs:
            similarities, scores = of_all_ranks(similarities, scores)
        return order_loss(similarities, scores, self.temperature)
