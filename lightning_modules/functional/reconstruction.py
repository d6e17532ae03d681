"""Arithmetic of reconstruction errors. Shapes: x, x̂ [batch, d]; mean [d]."""

from __future__ import annotations

import torch
from torch import Tensor


def squared_error(x: Tensor, reconstruction: Tensor) -> Tensor:
    """Σ‖x − x̂‖² over the batch, a scalar."""
    return (reconstruction - x).square().sum()


def fraction_of_variance_unexplained(x: Tensor, reconstruction: Tensor, mean: Tensor) -> Tensor:
    """Σ‖x − x̂‖² / Σ‖x − mean‖² over the batch, a scalar: the unit in which every reconstruction loss is optimised, so
    that a coefficient means the same on every input scale. 0 is perfect, 1 is no better than `mean`."""
    return squared_error(x, reconstruction) / squared_error(x, mean)


def geometric_median(x: Tensor, iterations: int = 100, tolerance: float = 1e-6) -> Tensor:
    """The point with the least summed distance to the rows of x [n, d]: [d] (Weiszfeld's algorithm).

    Unlike the mean it ignores a few rows of enormous norm.
    """
    estimate = x.mean(dim=0)
    for _ in range(iterations):
        weights = 1 / torch.linalg.vector_norm(x - estimate, dim=1).clamp_min(1e-12)
        updated = (weights @ x) / weights.sum()
        shift = torch.linalg.vector_norm(updated - estimate)
        estimate = updated
        if shift <= tolerance * torch.linalg.vector_norm(estimate).clamp_min(1e-12):
            break
    return estimate
