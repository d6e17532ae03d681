"""What the chunks of a batch share: weights that were rounded once, and the gradient of an embedding table.

A batch is encoded in a dozen chunks, with the same weights. Done chunk by chunk, autocast rounds every weight a dozen
times, and each chunk makes a gradient of the whole table of token embeddings, most of it zeros, to be added to the
others'. Within `one_batch` a weight is rounded once, and all lookups of a table have one gradient together.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


class _Batch:
    """What has been made so far for the chunks of one batch, by the weight it was made of."""

    def __init__(self) -> None:
        self.rounded: dict[Tensor, Tensor] = {}
        self.lookups: dict[Tensor, _Lookups] = {}


_current: ContextVar[_Batch | None] = ContextVar("one_batch", default=None)


@contextmanager
def one_batch() -> Iterator[None]:
    """Around the forward passes of a batch's chunks, during which no weight may change."""
    token = _current.set(_Batch())
    try:
        yield
    finally:
        _current.reset(token)


def rounded(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """The weight in a narrower dtype, without a graph."""
    batch = _current.get()
    if batch is None:
        return weight.detach().to(dtype)
    if weight not in batch.rounded or batch.rounded[weight].dtype != dtype:
        batch.rounded[weight] = weight.detach().to(dtype)
    return batch.rounded[weight]


def lookup(ids: Tensor, table: Tensor, padding: int | None) -> Tensor:
    """Rows of a table [n, d] by their numbers ids [...], [..., d]. The gradients of all lookups of a batch come to the
    table as one, when the last of them is there.

    Args:
        ids: int64.
        table: a parameter.
        padding: number of the row that gets no gradient.
    """
    batch = _current.get()
    if batch is None or not (torch.is_grad_enabled() and table.requires_grad):
        return torch.nn.functional.embedding(ids, table, padding)
    if table not in batch.lookups:
        batch.lookups[table] = _Lookups(table, -1 if padding is None else padding)
    lookups = batch.lookups[table]
    rows: Tensor = _Lookup.apply(ids, lookups.gate, table.detach(), lookups)  # type: ignore[no-untyped-call]
    return rows


class _Lookups:
    """The lookups of one table in a batch. All pass through `gate`, a scalar that is a function of the table: so the
    gate's backward comes after that of every lookup."""

    def __init__(self, table: Tensor, padding: int) -> None:
        self.padding = padding
        self.gradients: list[tuple[Tensor, Tensor]] = []
        self.gate: Tensor = _Gate.apply(table, self)  # type: ignore[no-untyped-call]


class _Gate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, table: Tensor, lookups: _Lookups) -> Tensor:
        ctx.lookups, ctx.rows = lookups, len(table)
        return table.new_zeros(())

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, _: Tensor) -> tuple[Tensor, None]:
        gradients, ctx.lookups.gradients = ctx.lookups.gradients, []
        ids, rows = (torch.cat(parts) for parts in zip(*gradients, strict=True))
        return torch.ops.aten.embedding_dense_backward(rows, ids, ctx.rows, ctx.lookups.padding, False), None


class _Lookup(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, ids: Tensor, gate: Tensor, table: Tensor, lookups: _Lookups) -> Tensor:
        ctx.save_for_backward(ids)
        ctx.lookups = lookups
        return torch.nn.functional.embedding(ids, table)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor, None, None]:
        (ids,) = ctx.saved_tensors
        ctx.lookups.gradients.append((ids.flatten(), grad.flatten(0, -2)))
        return None, grad.new_zeros(()), None, None
