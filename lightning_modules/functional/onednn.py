"""Linear layers on a CPU through oneDNN. Shapes: n tokens, i inputs, o outputs; W [o, i].

torch multiplies float32 matrices through MKL, which reaches less of some processors than oneDNN does and no more of
others; but it has oneDNN's product only as an operator for inference. Here it gets a gradient, three products of the
same kind:

    y = x Wᵀ + b        ∂x = ∂y W        ∂W = ∂yᵀ x

Which of them is faster is not measured: on a busy machine the choice would fall one way in one process and the other in
the next, and a resumed run would end with other bits.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import linear


def onednn_linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x Wᵀ + b with float32 on a CPU: [..., i], [o, i], [o] → [..., o]. See `runs_on_onednn`."""
    return _Linear.apply(x, weight, bias)  # type: ignore[no-any-return, no-untyped-call]


def rounded_linear(x: Tensor, weight: Tensor, bias: Tensor | None, narrow: Tensor) -> Tensor:
    """x Wᵀ + b in the dtype of x, with gradients of the weight and the bias in theirs.

    Args:
        x: [..., i].
        weight: [o, i], for its gradient alone.
        bias: [o].
        narrow: the weight in the dtype of x.
    """
    return _RoundedLinear.apply(x, weight, bias, narrow)  # type: ignore[no-any-return, no-untyped-call]


def product(x: Tensor, weight: Tensor) -> Tensor:
    """x Wᵀ without a gradient, [n, i], [o, i] → [n, o]: by oneDNN wherever it can."""
    if runs_on_onednn(x, weight) and has_onednn():
        return _product(x, weight, None)
    return torch.mm(x, weight.t())


def runs_on_onednn(x: Tensor, weight: Tensor) -> bool:
    """Whether `onednn_linear` can take these, and autocast does not want them in another dtype."""
    return (
        x.device.type == weight.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and x.numel() > 0
        and not torch.is_autocast_enabled("cpu")
    )


def has_onednn() -> bool:
    """Whether this torch was built with it."""
    available: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return available and hasattr(torch.ops.mkldnn, "_linear_pointwise")


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])
        # The rows are kept for the gradient of the weights alone.
        ctx.save_for_backward(rows if ctx.needs_input_grad[1] else None, weight if ctx.needs_input_grad[0] else None)
        ctx.shape = x.shape
        return _product(rows, weight, bias).view(*x.shape[:-1], weight.shape[0])

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        rows, weight = ctx.saved_tensors
        grad = grad.reshape(-1, grad.shape[-1])
        # oneDNN reads both ways round: no transposed matrix is copied.
        grad_x = _product(grad, weight.t(), None).view(ctx.shape) if ctx.needs_input_grad[0] else None
        grad_weight = _product(grad.t(), rows.t(), None) if ctx.needs_input_grad[1] else None
        return grad_x, grad_weight, grad.sum(dim=0) if ctx.needs_input_grad[2] else None


class _RoundedLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, narrow: Tensor) -> Tensor:
        ctx.save_for_backward(x if ctx.needs_input_grad[1] else None, narrow if ctx.needs_input_grad[0] else None)
        ctx.dtype = weight.dtype
        return linear(x, narrow, None if bias is None else bias.to(x.dtype))

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        x, narrow = ctx.saved_tensors
        rows = grad.reshape(-1, grad.shape[-1])
        grad_x = (rows @ narrow).view(*grad.shape[:-1], -1) if ctx.needs_input_grad[0] else None
        grad_weight = (rows.t() @ x.reshape(-1, x.shape[-1])).to(ctx.dtype) if ctx.needs_input_grad[1] else None
        return grad_x, grad_weight, rows.sum(dim=0, dtype=ctx.dtype) if ctx.needs_input_grad[2] else None, None


def _product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    product: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return product
