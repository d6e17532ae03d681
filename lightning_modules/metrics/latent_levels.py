"""What latents are on average over a set of rows."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric

from lightning_modules.functional import Codes, LatentLevels


class MeanLatents(Metric):
    """Mean magnitude and firing rate of every latent over all rows, of all ranks.

    Args:
        d_sae: number of latents.
    """

    full_state_update = False
    is_differentiable = False

    sums: Tensor
    counts: Tensor
    rows: Tensor

    def __init__(self, d_sae: int) -> None:
        super().__init__()
        self.add_state("sums", torch.zeros(d_sae, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("counts", torch.zeros(d_sae, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("rows", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, codes: Codes) -> None:
        """Adds the latents of a batch of rows."""
        fired = codes.fired()
        self.sums.index_add_(0, fired.latents, fired.values.detach().abs().double())
        self.counts += torch.bincount(fired.latents, minlength=len(self.counts))
        self.rows += codes.batch

    def compute(self) -> LatentLevels:
        """Both [d_sae]; nan before any row was seen."""
        return LatentLevels(self.sums / self.rows, self.counts.double() / self.rows)
