"""Arithmetic of reconstruction errors. Shapes: x, x̂ [batch, d]; mean [d]."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from lightning_modules.functional.kernels import compiled_kernels_run_on, native


def squared_error(x: Tensor, reconstruction: Tensor) -> Tensor:
    """Σ‖x − x̂‖² over the batch, a scalar; x is data and gets no gradient."""
    return _SquaredError.apply(x, reconstruction)  # type: ignore[no-any-return, no-untyped-call]


def sum_of_squares(rows: Tensor) -> Tensor:
    """Σ‖row‖² of rows [n, d], a scalar; row by row, so that no number of rows makes it less exact."""
    norms: Tensor = torch.linalg.vector_norm(rows, dim=-1)
    return norms.square().sum()


class _SquaredError(torch.autograd.Function):
    """Written out, since a batch of rows passes through memory three times instead of eight."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, reconstruction: Tensor) -> Tensor:
        if (
            x.dim() == 2
            and reconstruction.shape in (x.shape, x.shape[1:])
            and compiled_kernels_run_on(x, reconstruction)
        ):
            error, sums = native.row_errors(x, reconstruction, ctx.needs_input_grad[1])
            ctx.save_for_backward(error)
            return sums.sum()
        error = reconstruction - x
        ctx.save_for_backward(error)
        return sum_of_squares(error)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor]:
        (error,) = ctx.saved_tensors
        return None, error * (2 * grad)


def fraction_of_variance_unexplained(x: Tensor, reconstruction: Tensor, variance: Tensor) -> Tensor:
    """Σ‖x − x̂‖² / variance, a scalar; the variance is Σ‖x − mean‖² over the batch that x is, or is a part of. It is the
    unit in which every reconstruction loss is optimised, so that a coefficient means the same on every input scale. 0
    is perfect, 1 is no better than the mean."""
    return squared_error(x, reconstruction) / variance


class Spread(NamedTuple):
    """How rows [n, d] lie around their mean."""

    rows: int
    mean: Tensor
    """[d]."""
    squares: Tensor
    """Scalar, Σ‖row − mean‖²."""

    @classmethod
    def of(cls, rows: Tensor) -> Spread:
        """Of rows [n, d], n ≥ 1."""
        mean = rows.mean(dim=0)
        return cls(rows.shape[0], mean, squared_error(rows, mean))

    def merged(self, other: Spread) -> Spread:
        """Of the rows of both, without the cancellation of Σ‖row‖² − n‖mean‖² (Chan, Golub & LeVeque 1979)."""
        rows, shift = self.rows + other.rows, other.mean - self.mean
        squares = self.squares + other.squares + shift.square().sum() * (self.rows * other.rows / rows)
        return Spread(rows, self.mean + shift * (other.rows / rows), squares)


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
