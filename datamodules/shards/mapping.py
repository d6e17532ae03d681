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


def map_tensors(path: Path, expected: Mapping[str, tuple[torch.dtype, tuple[int, ...]]]) -> dict[str, Tensor]:
    """Maps a safetensors file read-only, without safetensors, which can only slice it or load it.

    Raises:
        UserError: the file does not hold exactly tensors of the expected dtypes and shapes.
    """
    with open(path, "rb") as file:
        header_bytes = int.from_bytes(file.read(8), "little")
        header = file.read(min(header_bytes, path.stat().st_size))
    try:
        entries = json.loads(header)
        return {
            name: _map_tensor(path, entries[name], 8 + header_bytes, dtype, shape)
            for name, (dtype, shape) in expected.items()
        }
    except (ValueError, KeyError, TypeError) as error:
        raise damage(path, str(error)) from error


def _map_tensor(path: Path, entry: dict[str, Any], data: int, dtype: torch.dtype, shape: tuple[int, ...]) -> Tensor:
    found, expected = (entry["dtype"], entry["shape"]), (_SAFETENSORS_NAMES[dtype], list(shape))
    if found != expected:
        raise ValueError(f"it holds {found} where {expected} should be")
    offset = data + entry["data_offsets"][0]
    mapped = np.memmap(path, dtype=_CARRIERS[dtype.itemsize], mode="r", offset=offset, shape=shape)
    with warnings.catch_warnings():
        # A write to a read-only map would crash the process; nothing here writes, and no map is handed out.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(mapped).view(dtype)
