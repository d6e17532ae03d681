"""Rows that lie in several memory maps, gathered in one go."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class MappedRows:
    """The rows of several tensors in memory, end to end, as if they were one.

    One `index_select` a tensor wakes all threads once a tensor, which takes longer than the copying. So there is one
    for all of them, over a single view that spans the addresses from the lowest to the highest: its row `n` is what
    lies `n` units above the lowest. Between the tensors it covers memory that is not theirs, which is never read.

    Args:
        parts: tensors [rows, …], contiguous and alike in dtype and shape but for their rows, at least one row each.
    """

    def __init__(self, parts: Sequence[Tensor]) -> None:
        self.parts = parts
        self.dtype = parts[0].dtype
        self.row_shape = parts[0].shape[1:]
        self._starts = np.cumsum([0, *(len(part) for part in parts)])
        self.rows = int(self._starts[-1])
        addresses = [part.data_ptr() for part in parts]
        lowest = min(addresses)
        row_bytes = parts[0][0].nbytes
        # The widest integer that every row starts at a multiple of: fewer elements to copy.
        unit = math.gcd(8, row_bytes, *(address - lowest for address in addresses))
        self._integers = _INTEGERS[unit]
        self._row_units = row_bytes // unit
        # from a row's number times _row_units to its place in the view
        self._shifts = (np.array(addresses) - lowest) // unit - self._starts[:-1] * self._row_units
        span = max(address + part.nbytes for address, part in zip(addresses, parts, strict=True)) - lowest
        memory = torch.frombuffer((ctypes.c_char * span).from_address(lowest), dtype=self._integers)
        self._view = memory.as_strided((len(memory) - self._row_units + 1, self._row_units), (1, 1))

    def gather(self, rows: Tensor, into: Tensor | None = None) -> Tensor:
        """Copies rows.

        Args:
            rows: int64 [n], ascending.
            into: [n, …] in the rows' dtype, where to; a new tensor by default.

        Raises:
            IndexError: a row does not exist.
        """
        numbers = rows.numpy()
        if len(numbers) and not 0 <= numbers[0] <= numbers[-1] < self.rows:
            raise IndexError(f"rows {numbers[0]} to {numbers[-1]} of {self.rows} rows")
        shifts = np.repeat(self._shifts, np.diff(np.searchsorted(numbers, self._starts)))
        places = torch.from_numpy(numbers * self._row_units + shifts)
        result = torch.empty(len(numbers), *self.row_shape, dtype=self.dtype) if into is None else into
        target = result.view(self._integers).view(len(numbers), self._row_units)
        torch.index_select(self._view, 0, places, out=target)
        return result
