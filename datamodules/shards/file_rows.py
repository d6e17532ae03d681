"""Rows that lie in several open files, read in one go."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor


class FilePart(NamedTuple):
    """Consecutive rows in a file."""

    handle: int
    offset: int
    """Bytes before the first row."""
    rows: int


class FileRows:
    """The rows of several files, end to end, as if they were one tensor. The files are open as long as it is used.

    A map of each would have to be made and given back with every batch, since the file may have gone from its cache by
    the next; reading runs of consecutive rows costs no more than that, and nothing that grows with the files.

    Args:
        parts: where the rows are, in order.
        dtype: of the rows.
        row_shape: shape of a row.
    """

    def __init__(self, parts: Sequence[FilePart], dtype: torch.dtype, row_shape: tuple[int, ...]) -> None:
        self.dtype = dtype
        self.row_shape = torch.Size(row_shape)
        self._parts = parts
        self._starts = np.cumsum([0, *(part.rows for part in parts)])
        self._row_bytes = dtype.itemsize * self.row_shape.numel()

    def gather(self, rows: Tensor, into: Tensor | None = None) -> Tensor:
        """Copies rows; see `MappedRows.gather`.

        Raises:
            IndexError: a row does not exist.
            OSError: a file ends too early.
        """
        numbers = rows.numpy()
        if len(numbers) and not 0 <= numbers[0] <= numbers[-1] < self._starts[-1]:
            raise IndexError(f"rows {numbers[0]} to {numbers[-1]} of {self._starts[-1]} rows")
        result = torch.empty(len(numbers), *self.row_shape, dtype=self.dtype) if into is None else into
        if not len(numbers):
            return result
        buffer: Any = result.view(torch.uint8).flatten().numpy()
        target = memoryview(buffer)
        parts = np.searchsorted(self._starts, numbers, side="right") - 1
        # a run ends where the next row does not follow, or lies in another file
        ends = np.flatnonzero((np.diff(numbers) != 1) | (np.diff(parts) != 0)) + 1
        begins = np.concatenate([[0], ends])
        lengths = np.diff(np.append(begins, len(numbers))) * self._row_bytes
        places = (numbers[begins] - self._starts[parts[begins]]) * self._row_bytes
        done = 0
        for part, place, length in zip(parts[begins].tolist(), places.tolist(), lengths.tolist(), strict=True):
            handle, offset, _ = self._parts[part]
            read = os.preadv(handle, [target[done : done + length]], offset + place)
            if read != length:
                raise OSError(f"{read} of {length} bytes could be read")
            done += length
        return result
