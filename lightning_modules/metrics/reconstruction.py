"""How much of the activations a reconstruction explains, over a whole data set."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric

from lightning_modules.functional import squared_error


class FractionOfVarianceUnexplained(Metric):
    """Σ‖x − x̂‖² / Σ‖x − x̄‖² over every row seen, x̄ the mean of those rows; explained variance is 1 minus it.

    Sums are kept in float64, where the difference Σ‖x‖² − n‖x̄‖² loses nothing that matters even for rows far from the
    origin.
    """

    full_state_update = False
    higher_is_better = False
    is_differentiable = False

    error: Tensor
    rows: Tensor
    total: Tensor
    squares: Tensor

    def __init__(self, d_in: int) -> None:
        super().__init__()
        self.add_state("error", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("rows", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("total", torch.zeros(d_in, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("squares", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, x: Tensor, reconstruction: Tensor) -> None:
        """x, reconstruction: [b, d]."""
        self.error += squared_error(x, reconstruction).double()
        self.rows += x.shape[0]
        self.total += x.sum(dim=0, dtype=torch.float64)
        self.squares += x.double().square().sum()

    def compute(self) -> Tensor:
        """Scalar; nan before any row was seen."""
        variance = self.squares - self.total.square().sum() / self.rows
        return (self.error / variance).float()
