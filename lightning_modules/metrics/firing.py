"""How often latents fire."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric

from lightning_modules.functional import Codes

DENSE_ABOVE = 0.1
"""A latent that fires on more than this share of the tokens is called dense: as a rule it means nothing to a reader."""


class FiringDensity(Metric):
    """Share of the rows on which each latent fires. Everything else that is said of sparsity follows from it: L0 is its
    sum, dead latents are those at 0.
    """

    full_state_update = False
    is_differentiable = False

    counts: Tensor
    rows: Tensor

    def __init__(self, d_sae: int) -> None:
        super().__init__()
        self.add_state("counts", torch.zeros(d_sae, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("rows", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, codes: Codes) -> None:
        """Counts the latents of one batch."""
        self.counts += codes.firing_counts()
        self.rows += codes.batch

    def compute(self) -> Tensor:
        """[d_sae] in [0, 1]."""
        return self.counts / self.rows


class MeanL1(Metric):
    """Mean over rows of Σ|f|, the latents as the decoder takes them."""

    full_state_update = False
    is_differentiable = False

    total: Tensor
    rows: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("rows", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, codes: Codes) -> None:
        """Adds the latents of one batch."""
        self.total += codes.values.abs().sum(dtype=torch.float64)
        self.rows += codes.batch

    def compute(self) -> Tensor:
        """Scalar; nan before any row was seen."""
        return (self.total / self.rows).float()


def summarize_density(density: Tensor) -> dict[str, Tensor]:
    """Scalars that follow from a firing density [d_sae]: `l0`, and the shares of `dead` (never fired) and `dense`
    latents.
    """
    return {
        "l0": density.sum(),
        "dead": (density == 0).float().mean(),
        "dense": (density > DENSE_ABOVE).float().mean(),
    }


def log_density(density: Tensor) -> Tensor:
    """log10 of the density of the latents that fired at all: what a firing-density histogram shows."""
    return density[density > 0].log10()
