"""How far a model's states have moved from what they were, told by latents of a frozen dictionary.

Shapes: s latents, n texts, d width.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class LatentLevels(NamedTuple):
    """What s latents are on some texts, on average over their tokens."""

    magnitudes: Tensor
    """float64 [s]: mean of |f|, tokens on which a latent is silent counted as 0."""
    rates: Tensor
    """float64 [s] in [0, 1]: share of the tokens on which each fires."""


class Drift(NamedTuple):
    """How far the latents have moved: scalars, as shares of all mean activation of the base, Σ_i a_i."""

    lost: float
    """Σ_i max(a_i − b_i, 0) / Σ_i a_i, in [0, 1]: activation of the base that is gone."""
    gained: float
    """Σ_i max(b_i − a_i, 0) / Σ_i a_i, ≥ 0: activation that was not there."""

    @property
    def total(self) -> float:
        """Σ_i |b_i − a_i| / Σ_i a_i, ≥ 0: the mean of the latents' relative changes |b_i − a_i| / a_i, each weighted by
        its a_i; a latent that was silent counts by what it gained.
        """
        return self.lost + self.gained


def drift_between(base: LatentLevels, now: LatentLevels) -> Drift:
    """Of the same texts. Their own latents are compared, so a model that has not moved has a drift of exactly 0: no
    sampling is in it.

    Raises:
        ValueError: the base has no activation at all, so there is nothing to lose.
    """
    total = float(base.magnitudes.sum())
    if not total > 0:
        raise ValueError("no latent fires on any token of the base")
    change = now.magnitudes - base.magnitudes
    return Drift(float(-change.clamp_max(0).sum()) / total, float(change.clamp_min(0).sum()) / total)


def most_changed(base: LatentLevels, now: LatentLevels, count: int) -> Tensor:
    """int64 [≤ count]: latents whose share in the drift is largest, the largest first, of equal ones the lower number;
    none that has not moved.
    """
    change = (now.magnitudes - base.magnitudes).abs()
    order = change.argsort(descending=True, stable=True)[:count]
    return order[change[order] > 0]


def row_cosines(first: Tensor, second: Tensor) -> Tensor:
    """float64 [n]: cosine of each row [n, d] with its counterpart; of two rows of zeros 0."""
    first, second = first.double(), second.double()
    norms = torch.linalg.vector_norm(first, dim=1) * torch.linalg.vector_norm(second, dim=1)
    cosines: Tensor = (first * second).sum(dim=1) / norms.clamp_min(torch.finfo(torch.float64).tiny)
    return cosines
