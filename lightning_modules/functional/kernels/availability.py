"""Whether kernels do the arithmetic of a tensor. Nothing here imports Triton before a tensor asks for it."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from importlib.util import find_spec

import torch
from torch import Tensor

from run_store import UserError

SWITCH = "FULGURITE_KERNELS"
LEAST_CAPABILITY = (8, 0)
"""What Triton has bfloat16 arithmetic from. AMD's GPUs count from 9."""

DTYPES = {torch.float16, torch.bfloat16, torch.float32, torch.float64}


def kernels_run_on(tensor: Tensor) -> bool:
    """Whether a tensor lies on a GPU that Triton has kernels for, or on a CPU where Triton interprets them.

    The environment variable FULGURITE_KERNELS=off leaves everything to the eager functions, TRITON_INTERPRET=1 has
    kernels interpreted on CPU tensors: slow, and meant for tests.

    Raises:
        UserError: FULGURITE_KERNELS is neither `auto` nor `off`.
    """
    on_gpu = tensor.device.type == "cuda"
    if not (on_gpu or interpreted()) or tensor.dtype not in DTYPES or switched_off() or not _triton_is_installed():
        return False
    return interpreted() or _capable(tensor.device)


def interpreted() -> bool:
    """Whether kernels are interpreted. Triton reads the variable when kernels are defined: it is not changed later."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def on_device_of(tensor: Tensor) -> AbstractContextManager[object]:
    """Kernels are launched on the current device, wherever their tensors lie: within this it is the tensor's."""
    return torch.cuda.device(tensor.device) if tensor.device.type == "cuda" else nullcontext()


def switched_off() -> bool:
    """Whether the environment leaves everything to the eager functions.

    Raises:
        UserError: FULGURITE_KERNELS is neither `auto` nor `off`.
    """
    choice = os.environ.get(SWITCH, "auto")
    if choice not in ("auto", "off"):
        raise UserError(f"The environment variable {SWITCH} is {choice!r}: set it to auto or off.")
    return choice == "off"


@cache
def _triton_is_installed() -> bool:
    return find_spec("triton") is not None


@cache
def _capable(device: torch.device) -> bool:
    return torch.cuda.get_device_capability(device) >= LEAST_CAPABILITY
