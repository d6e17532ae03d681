"""Rows of all ranks, with a gradient. Shapes: n_r rows of rank r."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, distributed
from torch.autograd.function import once_differentiable


def ranks() -> int:
    """How many processes there are; 1 where none are connected."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def gather_equal(x: Tensor) -> Tensor:
    """[…] of the same shape on every rank → [ranks, …], without a gradient."""
    parts = [torch.empty_like(x, memory_format=torch.contiguous_format) for _ in range(ranks())]
    distributed.all_gather(parts, x.detach().contiguous())
    return torch.stack(parts)


def sum_over_ranks(x: Tensor) -> Tensor:
    """The sum of every rank's x, of any shape, without a gradient; x itself where there is one rank."""
    if ranks() == 1:
        return x
    total = x.detach().clone()
    distributed.all_reduce(total)
    return total


def gather_rows(x: Tensor, counts: Sequence[int]) -> Tensor:
    """The rows of all ranks, in the order of ranks: [n_r, …] → [Σ n_r, …].

    The gradient of a row is the sum of what all ranks' losses have for it, so every rank has to take part in the
    backward too. Where DDP averages the ranks' gradients afterwards, what comes out is the gradient of the mean of the
    ranks' losses.

    Args:
        x: of any dtype, the same on every rank.
        counts: n_r of every rank.
    """
    return _GatherRows.apply(x, list(counts))  # type: ignore[no-any-return, no-untyped-call]


class _GatherRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, counts: list[int]) -> Tensor:
        ctx.counts = counts
        padded = x.new_zeros(max(counts), *x.shape[1:])
        padded[: len(x)] = x
        parts = gather_equal(padded)
        return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        # not reduce_scatter, which gloo lacks
        total = grad.contiguous().clone()
        distributed.all_reduce(total)
        rank = distributed.get_rank()
        first = sum(ctx.counts[:rank])
        return total[first : first + ctx.counts[rank]], None
