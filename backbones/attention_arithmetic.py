"""In which numbers attention is computed under autocast on a CPU."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode


class WideAttention(TorchFunctionMode):
    """Within it `scaled_dot_product_attention` computes in float32, whatever autocast says. torch's kernel for a CPU
    needs two to four times as long for bfloat16, and attention over short texts is a hundredth of the arithmetic."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func is not scaled_dot_product_attention or len(args) < 3:
            return func(*args, **kwargs)
        dtype = args[0].dtype
        wide = [_widened(part) for part in args]
        with torch.autocast("cpu", enabled=False):
            result: Tensor = func(*wide, **{name: _widened(part) for name, part in kwargs.items()})
        return result.to(dtype)


def around_recomputing() -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
    """For `torch.utils.checkpoint`: what is around a layer now and what when it is computed again in the backward pass,
    which knows of autocast by itself and of `WideAttention` only from here.
    """
    return nullcontext(), WideAttention() if torch.is_autocast_enabled("cpu") else nullcontext()


def _widened(part: Any) -> Any:
    return part.float() if isinstance(part, Tensor) and part.is_floating_point() else part
