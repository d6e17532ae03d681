"""Tensors of a safetensors file, mapped."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from run_store import UserError

# numpy has no bfloat16, so everything is mapped as integers of its width and viewed.
_CARRIERS = {1: np.int8, 2: np.int16, 4: np.int32}
_SAFETENSORS_NAMES = {
    torch.float32: "F32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.int32: "I32",
    torch.int8: "I8",
}


def damage(place: object, problem: str) -> UserError:
    """What is said of a file that is not what it was."""
    return UserError(f"{place} is damaged ({problem}): put the original back or extract the store again")


Expected = Mapping[str, tuple[torch.dtype, tuple[int, ...]]]
"""dtype and shape of every tensor that a file must hold."""


def offsets_in(path: Path, expected: Expected) -> dict[str, int]:
    """Where the tensors of a safetensors file begin, in bytes. safetensors itself can only slice a file or load it.

    Raises:
        UserError: the file does not hold tensors of the expected dtypes and shapes.
    """
    with open(path, "rb") as file:
        header_bytes = int.from_bytes(file.read(8), "little")
        header = file.read(min(header_bytes, path.stat().st_size))
    try:
        entries = json.loads(header)
        return {
            name: 8 + header_bytes + _offset(entries[name], dtype, shape) for name, (dtype, shape) in expected.items()
        }
    except (ValueError, KeyError, TypeError) as error:
        raise damage(path, str(error)) from error


def map_tensors(path: Path, expected: Expected) -> dict[str, Tensor]:
    """Maps the tensors of a safetensors file, to be read only.

    Raises:
        UserError: as `offsets_in`.
    """
    offsets = offsets_in(path, expected)
    return {name: _map(path, offsets[name], dtype, shape) for name, (dtype, shape) in expected.items()}


def _offset(entry: dict[str, Any], dtype: torch.dtype, shape: tuple[int, ...]) -> int:
    found, wanted = (entry["dtype"], entry["shape"]), (_SAFETENSORS_NAMES[dtype], list(shape))
    if found != wanted:
        raise ValueError(f"it holds {found} where {wanted} should be")
    return int(entry["data_offsets"][0])


def _map(path: Path, offset: int, dtype: torch.dtype, shape: tuple[int, ...]) -> Tensor:
    mapped = np.memmap(path, dtype=_CARRIERS[dtype.itemsize], mode="r", offset=offset, shape=shape)
    with warnings.catch_warnings():
        # A write to a read-only map would crash the process; nothing here writes, and no map is handed out.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(mapped).view(dtype)
