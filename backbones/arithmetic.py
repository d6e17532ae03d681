"""Where a model computes and with what numbers."""

from __future__ import annotations

import torch

from run_store import UserError


def resolve_device(name: str) -> torch.device:
    """The device of a name; `auto` is the GPU if there is one.

    Raises:
        UserError: this machine does not have it.
    """
    resolved = ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name
    try:
        return torch.empty(0, device=resolved).device
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"device {name!r} cannot be used on this machine: set it to auto or cpu") from error


def resolve_precision(precision: str, dtype: str, device: torch.device) -> str:
    """The arithmetic of a forward: that of the weights where they are less than float32, else the one asked for.

    Raises:
        UserError: another one is asked for than the weights allow, or one that the device is not made for.
    """
    if dtype not in ("float32", precision) and precision != "auto":
        raise UserError(
            f"precision {precision} cannot be had from weights of dtype {dtype}, which are computed as they are: set "
            "precision to auto or dtype to float32"
        )
    if dtype == "float16" and device.type == "cpu":
        raise UserError(
            "dtype float16 is a hundred times slower than float32 on a CPU, which does not multiply it: set dtype to "
            "bfloat16 or float32"
        )
    if dtype != "float32":
        return dtype
    if precision != "auto":
        return precision
    fast = torch.cuda.is_bf16_supported() if device.type == "cuda" else _cpu_multiplies_bfloat16()
    return "bfloat16" if fast else "float32"


def _cpu_multiplies_bfloat16() -> bool:
    """Whether the CPU has instructions for it."""
    # Private functions, because the public one is not in every version of torch that is allowed here.
    questions = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, question, lambda: False)() for question in questions)
