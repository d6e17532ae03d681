"""Matching pursuit (Mallat & Zhang 1993) over a batch, with the gradient of its unrolled steps.

Shapes: b rows of a batch, of which c are looked at at once, k steps, s atoms, d width.

    r_0 = x;  i_j = argmax_i r_(j−1)·W[i],  f_j = relu(r_(j−1)·W[i_j]),  r_j = r_(j−1) − f_j W[i_j]

Finding i_j asks for the correlations of every residual with every atom. Made anew they are a GEMM of b × s × d at each
of k steps. But a step changes them by −f_j W[i_j]Wᵀ, a row of the Gram matrix W Wᵀ: so there is one GEMM at first, one
of s × s × d for the Gram matrix, and b × s elements read and written a step, which on a CPU lie in its cache. With
b 4096, s 3072, d 384, k 32 that is 17 GFLOP instead of 309, and a whole training step takes a fifth of the time. Where
the Gram matrix would cost more than it saves (few rows) or not fit (s above 16384), correlations are made anew.

Only the choice is made from these correlations. Values come from the residual itself, so they are exact to rounding
whatever precision the GEMMs run in, and have a gradient, while a choice has none. With λ_j = ∂L/∂r_j, λ_k = 0:

    ∂L/∂f_j = g_j − λ_j·W[i_j] where f_j > 0, else 0      g_j from whatever the values are used for
    λ_(j−1) = λ_j + ∂L/∂f_j W[i_j]
    ∂W[i_j] gains ∂L/∂f_j r_(j−1) − f_j λ_j
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import linear

from lightning_modules.functional.entries import entry_sums, rows_with_entries_at_once
from lightning_modules.functional.sparse import bag_sums

GRAM_ELEMENTS = 2**28
"""The largest Gram matrix that is made: 1 GB in float32."""

CPU_CORRELATIONS = 2**19
"""Correlations that are kept at once on a CPU: 2 MB in float32, which stay in its cache from step to step."""


def matching_pursuit(x: Tensor, atoms: Tensor, k: int, residual_threshold: float = 0.0) -> tuple[Tensor, Tensor]:
    """What k steps of matching pursuit take, in their order.

    Args:
        x: [b, d].
        atoms: [s, d], unit rows.
        k: number of steps.
        residual_threshold: a row whose residual is shorter than this after a step makes no more of them.

    Returns:
        values [b, k] ≥ 0 and atom numbers [b, k] int64. A step that a row does not make, or in which no atom correlates
        with the residual, has the value 0. An atom may be taken more than once.
    """
    return _Pursuit.apply(x, atoms, k, residual_threshold)  # type: ignore[no-any-return, no-untyped-call]


def merge_repeats(values: Tensor, indices: Tensor) -> tuple[Tensor, Tensor]:
    """Adds up what a row has of the same latent: [b, k], [b, k] int64 → the same, with latents in ascending order and
    then as many zeros, of any latent, as entries were merged."""
    latents, order = indices.sort(dim=1, stable=True)
    starts = latents[:, 1:] != latents[:, :-1]
    places = torch.nn.functional.pad(starts.long().cumsum(dim=1), (1, 0))
    merged = torch.zeros_like(values).scatter_add(1, places, values.gather(1, order))
    return merged, torch.zeros_like(indices).scatter(1, places, latents)


class _Pursuit(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, atoms: Tensor, k: int, residual_threshold: float) -> tuple[Tensor, Tensor]:
        latents = len(atoms)
        gram = None
        if latents <= k * len(x) and latents**2 <= GRAM_ELEMENTS:
            gram = linear(atoms, atoms).to(atoms.dtype)
        size = max(1, CPU_CORRELATIONS // latents) if x.device.type == "cpu" else len(x)
        split = torch.split(x.to(atoms.dtype), size)
        parts = [_pursue(rows, atoms, gram, k, residual_threshold) for rows in split]
        values, indices = (torch.cat(part) for part in zip(*parts, strict=True))
        ctx.save_for_backward(x, atoms, values, indices)
        ctx.mark_non_differentiable(indices)
        return values, indices

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor, Tensor, None, None]:
        x, atoms, values, indices = ctx.saved_tensors
        size = rows_with_entries_at_once(values, x.shape[1])
        rows_of_each = (torch.split(each, size) for each in (x.to(atoms.dtype), values, indices, grad))
        x_grads, atoms_grad = [], torch.zeros_like(atoms)
        for rows, some_values, some_indices, some_grads in zip(*rows_of_each, strict=True):
            x_grad, part = _pursue_back(rows, atoms, some_values, some_indices, some_grads)
            x_grads.append(x_grad)
            atoms_grad += part
        return torch.cat(x_grads).to(x.dtype), atoms_grad, None, None


def _pursue(x: Tensor, atoms: Tensor, gram: Tensor | None, k: int, residual_threshold: float) -> tuple[Tensor, Tensor]:
    values, indices = x.new_empty(k, len(x)), torch.empty(k, len(x), dtype=torch.int64, device=x.device)
    residual, going = x.clone(), None
    correlations = linear(x, atoms).to(x.dtype)
    for step in range(k):
        latents = indices[step] = _largest_in_rows(correlations)
        taken = atoms.index_select(0, latents)
        value = (taken * residual).sum(dim=1).relu_()
        values[step] = value = value if going is None else value * going
        residual.addcmul_(taken, value[:, None], value=-1)
        if residual_threshold > 0:
            long = torch.linalg.vector_norm(residual, dim=1) >= residual_threshold
            going = long if going is None else going & long
        if step + 1 == k:
            break
        if gram is None:
            correlations = linear(residual, atoms)
        else:
            correlations -= bag_sums(value[:, None], latents[:, None], gram)
    return values.T, indices.T


def _pursue_back(x: Tensor, atoms: Tensor, values: Tensor, indices: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients by x [c, d] and by the atoms [s, d] of what `_pursue` has made, from those by its values [c, k]."""
    factors, latents = values.T.contiguous(), indices.T.contiguous()
    residuals = x.new_empty(len(factors), *x.shape)
    residuals[0] = x
    for step in range(len(factors) - 1):
        taken = atoms.index_select(0, latents[step])
        torch.addcmul(residuals[step], factors[step, :, None], taken, value=-1, out=residuals[step + 1])
    onwards = torch.zeros_like(x)
    for step in range(len(factors) - 1, -1, -1):
        factor, taken = factors[step, :, None], atoms.index_select(0, latents[step])
        by_value = (grad[:, step, None] - (onwards * taken).sum(dim=1, keepdim=True)) * (factor > 0)
        # the atom's gradient takes the place of the residual, which is not needed any more
        residuals[step].mul_(by_value).addcmul_(onwards, factor, value=-1)
        onwards.addcmul_(taken, by_value)
    return onwards, entry_sums(torch.ones_like(factors), latents, residuals, len(atoms))


def _largest_in_rows(correlations: Tensor) -> Tensor:
    """argmax of each row of [c, s]: [c]. The maximum of a block is found at several times the speed of its place, so
    places are looked for in one block a row alone."""
    block = math.gcd(correlations.shape[1], 64)
    blocks = correlations.view(len(correlations), -1, block)
    best = blocks.amax(dim=2).argmax(dim=1)
    within = blocks[torch.arange(len(best), device=best.device), best].argmax(dim=1)
    return best * block + within
