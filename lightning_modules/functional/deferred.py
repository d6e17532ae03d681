"""A loss whose gradient is made when it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

Gradients = Callable[[Tensor], Sequence[Tensor | None]]


def deferred(value: Tensor, gradients: Gradients, parameters: Sequence[Tensor]) -> Tensor:
    """The value, with a graph of one node, for one backward. So whatever happens on the way to a gradient, nothing is
    half added to `.grad`, and what waits there (accumulation, clipping, DDP's reduction) sees it whole.

    Args:
        value: scalar without a graph.
        gradients: given the gradient of the value, that of each parameter. It is let go of afterwards.
        parameters: those that require a gradient.
    """
    return _Deferred.apply(value, gradients, *parameters)  # type: ignore[no-any-return, no-untyped-call]


class _Deferred(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, gradients: Gradients, *parameters: Tensor) -> Tensor:
        ctx.gradients = gradients
        return value.clone()

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        gradients, ctx.gradients = ctx.gradients, None
        return None, None, *gradients(grad)
