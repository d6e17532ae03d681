"""How well nested prefixes of the dictionary reconstruct, each by itself.

Shapes: b rows of a batch, of which c are looked at at once, E kept latents of all of them, s latents, d width, n
prefixes; the p-th has the latents before ends[p], and group p is what it has more than the one before.

What group p says of a row is a bag of kept latents, so all groups together cost one decode, and the residual of prefix
p is the target less the first p groups. Group p is in every prefix from p on, so its gradient is the sum of their
residuals: both ways are running sums over [c, n, d], which a CPU makes for as many rows as its cache holds.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from lightning_modules.functional.codes import BatchCodes
from lightning_modules.functional.entries import CPU_ELEMENTS
from lightning_modules.functional.kernels import compiled_kernels_run_on, native
from lightning_modules.functional.sparse import bag_sums, gathered_dot, latent_sums


def prefix_errors(codes: BatchCodes, W_dec: Tensor, ends: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Σ_r ‖target[r] − Σ_(i < ends[p]) f[r, i] W_dec[i]‖² of every prefix p; its gradient is found together with it.

    Args:
        codes: f.
        W_dec: [s, d], one row a latent.
        ends: [n] int64, ascending up to s.
        target: [b, d], less whatever is reconstructed beside the latents, such as a bias.

    Returns:
        Their sum, a scalar, and each of them, [n], without a graph.
    """
    return _PrefixErrors.apply(codes.values, codes.rows, codes.indices, W_dec, ends, target)  # type: ignore[no-any-return, no-untyped-call]


class _PrefixErrors(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, values: Tensor, rows: Tensor, indices: Tensor, W_dec: Tensor, ends: Tensor, target: Tensor
    ) -> tuple[Tensor, Tensor]:
        errors, W_dec_grad = W_dec.new_zeros(len(ends)), torch.zeros_like(W_dec)
        part_of = _compiled_part if compiled_kernels_run_on(values, W_dec) else _part
        values_grads, target_grads = [], []
        for some, wanted in _parts(values, rows, indices, W_dec, target, len(ends)):
            part = part_of(some, W_dec, ends, wanted.to(W_dec.dtype), W_dec_grad)
            errors += part.errors
            values_grads.append(part.values)
            target_grads.append(part.target)
        ctx.save_for_backward(torch.cat(values_grads), W_dec_grad, torch.cat(target_grads))
        ctx.mark_non_differentiable(errors)
        return errors.sum(), errors

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor, None, None, Tensor, None, Tensor]:
        values, W_dec, target = ctx.saved_tensors
        return grad * values, None, None, grad * W_dec, None, grad * target


class _Kept(NamedTuple):
    """Kept latents of some rows, which are counted from the first of them."""

    values: Tensor
    rows: Tensor
    indices: Tensor


class _Part(NamedTuple):
    """What c rows come to."""

    errors: Tensor
    """[n] of each prefix."""
    values: Tensor
    """[E] gradient."""
    target: Tensor
    """[c, d] gradient."""


def _part(some: _Kept, W_dec: Tensor, ends: Tensor, target: Tensor, W_dec_grad: Tensor) -> _Part:
    """Of c rows; the gradient of W_dec is added to `W_dec_grad` [s, d]."""
    # groups ascend with the latents of a row, so the numbers of the bags ascend too
    bags = some.rows * len(ends) + torch.searchsorted(ends, some.indices, right=True)
    starts = torch.searchsorted(bags, torch.arange(len(target) * len(ends), device=bags.device))
    residuals = _residuals(some, W_dec, starts, target, len(ends))
    errors = torch.stack([residual.square().sum() for residual in residuals.unbind(dim=1)])
    for group in range(len(ends) - 2, -1, -1):
        residuals[:, group] += residuals[:, group + 1]
    onwards = residuals.flatten(0, 1)
    values_grad = -2 * gathered_dot(onwards, W_dec, some.indices, starts)
    W_dec_grad.sub_(latent_sums(some.values, some.indices, onwards, len(W_dec), bags), alpha=2)
    return _Part(errors, values_grad, 2 * residuals[:, 0])


def _compiled_part(some: _Kept, W_dec: Tensor, ends: Tensor, target: Tensor, W_dec_grad: Tensor) -> _Part:
    """As `_part`."""
    starts = torch.searchsorted(some.rows, torch.arange(len(target) + 1))
    groups = torch.searchsorted(ends, some.indices, right=True)
    done = native.nested(
        some.values, some.indices, starts, groups, W_dec, target, W_dec.new_ones(len(ends)), W_dec_grad
    )
    return _Part(done.errors.sum(dim=0), done.values, done.target)


def _parts(
    values: Tensor, rows: Tensor, indices: Tensor, W_dec: Tensor, target: Tensor, prefixes: int
) -> Iterator[tuple[_Kept, Tensor]]:
    """What is kept of some rows, and their targets [c, d]. A GPU has all rows at once, and is asked for nothing."""
    if target.device.type != "cpu":
        yield _Kept(values, rows, indices), target
        return
    # in parts that are smaller than W_dec's gradient, adding the parts' would cost more than they do
    size = max(1, max(CPU_ELEMENTS, W_dec.numel()) // (prefixes * target.shape[1]))
    firsts = torch.arange(0, len(target) + size, size).clamp_max(len(target))
    cuts = torch.searchsorted(rows, firsts).tolist()
    for place, wanted in enumerate(torch.split(target, size)):
        kept = slice(cuts[place], cuts[place + 1])
        yield _Kept(values[kept], rows[kept] - place * size, indices[kept]), wanted


def _residuals(kept: _Kept, W_dec: Tensor, starts: Tensor, target: Tensor, prefixes: int) -> Tensor:
    """[c, n, d]: what each prefix misses."""
    bags = bag_sums(kept.values, kept.indices, W_dec, starts)
    residuals = bags.view(len(target), prefixes, -1).neg_()
    residuals[:, 0] += target
    for prefix in range(1, prefixes):
        residuals[:, prefix] += residuals[:, prefix - 1]
    return residuals
