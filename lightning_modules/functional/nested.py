"""How well every prefix of a row's latents reconstructs it.

Shapes: b rows of a batch, of which c are looked at at once, k kept latents a row, s latents, d width.

What the first j latents miss follows from what the first j − 1 miss, r_j = r_(j−1) − f_j W_dec[i_j], so the errors of
all prefixes cost one pass over the kept entries. Their gradient costs one more, backwards: r_j is part of every later
residual, so the gradient of latent j is that of the sum over all m ≥ j. A CPU makes both passes for a few rows at a
time, and nothing of size b × k × d is ever made.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from lightning_modules.functional.entries import entry_sums, rows_with_entries_at_once
from lightning_modules.functional.kernels import compiled_kernels_run_on, native


def nested_squared_error(
    values: Tensor, indices: Tensor, W_dec: Tensor, target: Tensor, weights: Sequence[float]
) -> Tensor:
    """Σ_j weights[j] Σ_r ‖target[r] − Σ_(i ≤ j) values[r, i] · W_dec[indices[r, i]]‖², a scalar; its gradient is found
    together with it.

    Args:
        values: [b, k], in the order in which prefixes grow.
        indices: [b, k] int64 latent numbers.
        W_dec: [s, d], one row a latent.
        target: [b, d], less whatever is reconstructed beside the latents, such as a bias.
        weights: k of them: what the error of the first latent counts, of the first two, ….
    """
    return _NestedSquaredError.apply(values, indices, W_dec, target, weights)  # type: ignore[no-any-return, no-untyped-call]


class _Part(NamedTuple):
    """What c rows come to."""

    error: Tensor
    """Scalar."""
    values: Tensor
    """[c, k] gradient."""
    target: Tensor
    """[c, d] gradient."""


class _NestedSquaredError(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, values: Tensor, indices: Tensor, W_dec: Tensor, target: Tensor, weights: Sequence[float]
    ) -> Tensor:
        size = rows_with_entries_at_once(values, W_dec.shape[1])
        part_of = _compiled_part if compiled_kernels_run_on(values, W_dec) else _part
        rows = zip(*(torch.split(part, size) for part in (values, indices, target.to(W_dec.dtype))), strict=True)
        error, W_dec_grad = W_dec.new_zeros(()), torch.zeros_like(W_dec)
        values_grads, target_grads = [], []
        for some_values, some_indices, some_targets in rows:
            part = part_of(some_values, some_indices, W_dec, some_targets, weights, W_dec_grad)
            error += part.error
            values_grads.append(part.values)
            target_grads.append(part.target)
        ctx.save_for_backward(torch.cat(values_grads), W_dec_grad, torch.cat(target_grads))
        return error

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, Tensor, Tensor, None]:
        values, W_dec, target = ctx.saved_tensors
        return grad * values, None, grad * W_dec, grad * target, None


def _compiled_part(
    values: Tensor, indices: Tensor, W_dec: Tensor, target: Tensor, weights: Sequence[float], W_dec_grad: Tensor
) -> _Part:
    """As `_part`: each latent is a group of its own."""
    (rows, kept), of_each = values.shape, values.new_tensor(weights)
    starts, groups = torch.arange(0, rows * kept + 1, kept), torch.arange(kept).repeat(rows)
    entries = values.flatten(), indices.flatten(), starts, groups
    done = native.nested(*entries, W_dec, target, of_each, W_dec_grad)
    return _Part((done.errors * of_each).sum(), done.values.view_as(values), done.target)


def _part(
    values: Tensor, indices: Tensor, W_dec: Tensor, target: Tensor, weights: Sequence[float], W_dec_grad: Tensor
) -> _Part:
    """Of c rows; the gradient of W_dec is added to `W_dec_grad` [s, d]."""
    factors, latents = values.T.contiguous(), indices.T.contiguous()
    residuals = target.new_empty(len(factors), *target.shape)
    error, missed = target.new_zeros(()), target
    for place, weight in enumerate(weights):
        atoms = W_dec.index_select(0, latents[place])
        missed = torch.addcmul(missed, factors[place, :, None], atoms, value=-1, out=residuals[place])
        error = torch.add(error, missed.square().sum(), alpha=weight)
    values_grad = torch.empty_like(factors)
    onwards = torch.zeros_like(target)
    for place in range(len(weights) - 1, -1, -1):
        # half the gradient by target; it takes the place of the residual, which is not needed any more
        onwards = torch.add(onwards, residuals[place], alpha=weights[place], out=residuals[place])
        atoms = W_dec.index_select(0, latents[place])
        torch.sum(atoms.mul_(onwards), dim=1, out=values_grad[place])
    W_dec_grad += entry_sums(-2 * factors, latents, residuals, len(W_dec))
    return _Part(error, -2 * values_grad.T, 2 * onwards)
