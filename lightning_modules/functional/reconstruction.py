"""Arithmetic of reconstruction errors. Shapes: x, x̂ [batch, d]; mean [d]."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from lightning_modules.functional.kernels import compiled_kernels_run_on, native


class Missed(NamedTuple):
    """What a reconstruction misses."""

    error: Tensor
    """[batch, d] x − x̂, without a graph."""
    squared: Tensor
    """Scalar, Σ‖x − x̂‖² over the batch, with one."""


def missed(x: Tensor, reconstruction: Tensor) -> Missed:
    """What the reconstruction of x misses; x is data and gets no gradient."""
    return Missed(*_Missed.apply(x, reconstruction))  # type: ignore[no-untyped-call]


def squared_error(x: Tensor, reconstruction: Tensor) -> Tensor:
    """Σ‖x − x̂‖² over the batch, a scalar; x̂ may be one row [d] for all. x is data and gets no gradient."""
    without_graph = not (torch.is_grad_enabled() and reconstruction.requires_grad)
    rows = x.dim() == 2 and reconstruction.shape in (x.shape, x.shape[1:])
    if without_graph and rows and compiled_kernels_run_on(x, reconstruction):
        return native.row_errors(x, reconstruction, False)[1].sum()
    return missed(x, reconstruction).squared


def sum_of_squares(rows: Tensor) -> Tensor:
    """Σ‖row‖² of rows [n, d], a scalar; row by row, so that no number of rows makes it less exact."""
    norms: Tensor = torch.linalg.vector_norm(rows, dim=-1)
    return norms.square().sum()


class _Missed(torch.autograd.Function):
    """Written out, since a batch of rows passes through memory three times instead of eight."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, reconstruction: Tensor) -> tuple[Tensor, Tensor]:
        if x.dim() == 2 and reconstruction.shape == x.shape and compiled_kernels_run_on(x, reconstruction):
            error, sums = native.row_errors(reconstruction, x, True)
            assert error is not None
            squared = sums.sum()
        else:
            error = x - reconstruction
            squared = sum_of_squares(error)
        ctx.mark_non_differentiable(error)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(error)
        return error, squared

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, _: None, grad: Tensor | None) -> tuple[None, Tensor | None]:
        (error,) = ctx.saved_tensors
        return None, None if grad is None else error * (-2 * grad)


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
