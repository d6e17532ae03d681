"""Losses whose gradients are made when they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from lightning_modules.functional.side_by_side import side_by_side

Gradients = Callable[[Tensor], Sequence[Tensor | None]]


class Deferred(NamedTuple):
    """A loss, and how to come to its gradient."""

    value: Tensor
    """Scalar without a graph."""
    gradients: Gradients
    """Given the gradient of the value, that of each parameter. It is let go of afterwards."""
    parameters: Sequence[Tensor]
    """Those that require a gradient."""


def deferred(value: Tensor, gradients: Gradients, parameters: Sequence[Tensor]) -> Tensor:
    """The value of a `Deferred`, with a graph of one node, for one backward. So whatever happens on the way to a
    gradient, nothing is half added to `.grad`, and what waits there (accumulation, clipping, DDP's reduction) sees it
    whole.
    """
    return deferred_together([Deferred(value, gradients, parameters)])[0]


def deferred_together(losses: Sequence[Deferred]) -> tuple[Tensor, ...]:
    """As `deferred` of each, with one node for all: their gradients are made side by side. No loss may depend on what
    another's gradient does.
    """
    parameters = [parameter for loss in losses for parameter in loss.parameters]
    return _Deferred.apply(losses, *parameters)  # type: ignore[no-any-return, no-untyped-call]


class _Deferred(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, losses: Sequence[Deferred], *parameters: Tensor) -> tuple[Tensor, ...]:
        ctx.work = [loss.gradients for loss in losses]
        return tuple(loss.value.clone() for loss in losses)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        work, ctx.work = ctx.work, None
        made = side_by_side([partial(gradients, grad) for gradients, grad in zip(work, grads, strict=True)])
        return None, *(gradient for gradients in made for gradient in gradients)
