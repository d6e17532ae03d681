"""Matryoshka representation learning (Kusupati et al. 2022, arXiv 2205.13147) around another loss."""

from __future__ import annotations

from jsonargparse.typing import PositiveFloat, PositiveInt
from torch import Tensor

from lightning_modules.functional import unit
from lightning_modules.losses.base import ContrastiveLoss, EmbeddedBatch
from run_store import UserError


class Matryoshka(ContrastiveLoss):
    """Σ_k w_k · loss(first k dimensions, at unit length), so that embeddings may be cut and still serve.

    Args:
        loss: of each prefix.
        dims: k of each prefix. The whole width is one only if it is named.
        weights: w_k in the order of dims; 1 each by default.
    """

    def __init__(
        self, loss: ContrastiveLoss, dims: list[PositiveInt], weights: list[PositiveFloat] | None = None
    ) -> None:
        super().__init__()
        self.loss = loss
        self.dims = [int(k) for k in dims]
        self.weights = [1.0] * len(dims) if weights is None else [float(weight) for weight in weights]

    @property
    def needs_guide(self) -> bool:
        return self.loss.needs_guide

    def check_settings(self) -> None:
        super().check_settings()
        self.loss.check_settings()
        if isinstance(self.loss, Matryoshka):
            raise UserError("Matryoshka: loss is another Matryoshka: name all prefixes in the dims of one")
        if not self.dims:
            raise UserError("Matryoshka: dims is empty: name at least one number of dimensions")
        if len(set(self.dims)) < len(self.dims):
            raise UserError(f"Matryoshka: dims is {self.dims}: name each number of dimensions once")
        if len(self.weights) != len(self.dims):
            raise UserError(
                f"Matryoshka: there are {len(self.weights)} weights for {len(self.dims)} dims: give one for each"
            )

    def of(self, batch: EmbeddedBatch) -> Tensor:
        width = batch.texts.shape[1]
        if max(self.dims) > width:
            raise UserError(
                f"Matryoshka: dims names {max(self.dims)}, and the encoder's embeddings have {width} dimensions: "
                f"leave out what is more than {width}"
            )
        total = batch.texts.new_zeros(())
        for k, weight in zip(self.dims, self.weights, strict=True):
            total = total + weight * self.loss(batch._replace(texts=unit(batch.texts[:, :k])))
        return total
