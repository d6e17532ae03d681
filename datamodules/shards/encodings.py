"""How the rows of a hook point are kept on disk, and what reading makes of them.

float32, bfloat16, float16   "activations" [rows, d] as they are
int8                         "activations" int8 [rows, d], "scales" bfloat16 [rows, ceil(d / SCALE_BLOCK)]: each
                             value is its code times the scale of its block of SCALE_BLOCK consecutive values
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import pad

ACTIVATIONS_KEY = "activations"
SCALES_KEY = "scales"
SCALE_BLOCK = 64

# What is converted at a time. Encoding has intermediate results that should stay in the processor's cache; decoding has
# none, and waking the threads for smaller pieces was measured to cost more than the cache gives.
_ROWS_ENCODED = 1024
_VALUES_DECODED = 1 << 21

Buffer = Callable[[str], Tensor]


class StoredColumn(Protocol):
    """One tensor of the rows as stored, whether in memory or in files."""

    dtype: torch.dtype
    row_shape: torch.Size

    def gather(self, rows: Tensor, into: Tensor | None = None) -> Tensor:
        """Copies rows, int64 [n], ascending, into [n, …], a new tensor by default."""
        ...


StoredColumns = Mapping[str, StoredColumn]
"""The tensors that keep rows, by their names in a file."""


class Encoding(ABC):
    """One way of keeping rows of floats."""

    @abstractmethod
    def columns(self, d: int) -> dict[str, tuple[torch.dtype, int]]:
        """dtype and width of every tensor that keeps rows of `d` values."""

    @abstractmethod
    def encode(self, rows: Tensor, into: Mapping[str, Tensor]) -> Tensor:
        """Fills the tensors of `columns` with rows, [n, d] in any float dtype.

        Returns:
            [n, d], in which NaN and infinities show if the rows cannot be kept.
        """

    @abstractmethod
    def read(self, stored: StoredColumns, rows: Tensor, dtype: torch.dtype | None, buffer: Buffer) -> Tensor:
        """Gathers rows.

        Args:
            stored: the tensors of `columns`.
            rows: int64 [n], ascending.
            dtype: of the result; None for the one that costs no conversion.
            buffer: gives, for a key of `columns`, a tensor [n, …] to be written over.

        Returns:
            [n, d], a new tensor.
        """

    def row_bytes(self, d: int) -> int:
        """What a row of `d` values takes on disk."""
        return sum(dtype.itemsize * width for dtype, width in self.columns(d).values())


class Plain(Encoding):
    """Values as they are, in one dtype."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype

    def columns(self, d: int) -> dict[str, tuple[torch.dtype, int]]:
        return {ACTIVATIONS_KEY: (self.dtype, d)}

    def encode(self, rows: Tensor, into: Mapping[str, Tensor]) -> Tensor:
        # As stored: float16 turns large finite values into infinities.
        return into[ACTIVATIONS_KEY].copy_(rows)

    def read(self, stored: StoredColumns, rows: Tensor, dtype: torch.dtype | None, buffer: Buffer) -> Tensor:
        activations = stored[ACTIVATIONS_KEY]
        if dtype in (None, self.dtype):
            return activations.gather(rows)
        return activations.gather(rows, buffer(ACTIVATIONS_KEY)).to(dtype)


class BlockInt8(Encoding):
    """Whole numbers from -127 to 127 and, for every `SCALE_BLOCK` values, the scale that the largest of them needs.

    The scale is absmax / 127, rounded to bfloat16, whose range is float32's: no activation is too large, and none above
    1e-33 too small. Codes are found with the rounded scale, and 127.5 is the most that the rounding could ask for, so
    that no value is off by more than half a scale. A block of zeros is exact.
    """

    def columns(self, d: int) -> dict[str, tuple[torch.dtype, int]]:
        return {ACTIVATIONS_KEY: (torch.int8, d), SCALES_KEY: (torch.bfloat16, math.ceil(d / SCALE_BLOCK))}

    def encode(self, rows: Tensor, into: Mapping[str, Tensor]) -> Tensor:
        parts = (torch.split(columns, _ROWS_ENCODED) for columns in (rows, into[ACTIVATIONS_KEY], into[SCALES_KEY]))
        for values, codes, scales in zip(*parts, strict=True):
            padded = pad(values.float(), (0, scales.shape[1] * SCALE_BLOCK - values.shape[1]))
            blocks = torch.unflatten(padded, 1, (-1, SCALE_BLOCK))
            scales.copy_(blocks.abs().amax(dim=2) / 127)
            # A block whose scale is zero holds nothing but zeros, or values below float32's normal range.
            divisors = scales.float().where(scales > 0, 1.0)
            quotients = (blocks / divisors[:, :, None]).round_().clamp_(-127, 127).nan_to_num_(0.0)
            codes.copy_(quotients.flatten(1)[:, : values.shape[1]])
        return rows

    def read(self, stored: StoredColumns, rows: Tensor, dtype: torch.dtype | None, buffer: Buffer) -> Tensor:
        codes, scales = (stored[key].gather(rows, buffer(key)) for key in (ACTIVATIONS_KEY, SCALES_KEY))
        values = torch.empty(codes.shape, dtype=torch.float32)
        at_once = max(1, _VALUES_DECODED // codes.shape[1])
        pieces = (torch.split(tensor, at_once) for tensor in (codes, scales, values))
        for some_codes, some_scales, some_values in zip(*pieces, strict=True):
            _decode(some_codes, some_scales.float(), some_values)
        return values if dtype is None else values.to(dtype)


ENCODINGS: dict[str, Encoding] = {
    "float32": Plain(torch.float32),
    "bfloat16": Plain(torch.bfloat16),
    "float16": Plain(torch.float16),
    "int8": BlockInt8(),
}


def _decode(codes: Tensor, scales: Tensor, values: Tensor) -> None:
    values.copy_(codes)
    whole = codes.shape[1] // SCALE_BLOCK
    if whole:
        torch.unflatten(values[:, : whole * SCALE_BLOCK], 1, (whole, SCALE_BLOCK)).mul_(scales[:, :whole, None])
    if whole < scales.shape[1]:
        values[:, whole * SCALE_BLOCK :].mul_(scales[:, whole:])
