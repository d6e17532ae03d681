"""A shuffle that is a formula: any position of any epoch is computed without what came before it.

That makes resuming exact (a cursor is the whole state) and costs no memory, however many rows there are.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from datamodules.shards.permutation import images_of, place_of_last


class BlockShuffle:
    """The order in which epochs visit the rows of some ranges, each row exactly once an epoch.

    The rows, ranges laid end to end, are cut into blocks of `block_rows` and the blocks are permuted. Larger blocks
    read faster from a disk; smaller ones mix better. The last block may be shorter, wherever the permutation puts it.

    Args:
        ranges: int64 [ranges, 2], ascending first rows and rows after the last; empty ranges may be among them.
        block_rows: rows that stay together, at least 1.
        seed: with the epoch and the group, all that the order depends on.
        group: tells orders of the same seed apart; see `GroupedShuffle`.
    """

    mixed_shards = 0  # all of them are mixed

    def __init__(self, ranges: Tensor, block_rows: int, seed: int, group: int = 0) -> None:
        starts, stops = _joined(ranges.numpy())
        self._ends = np.cumsum(stops - starts)
        self._gaps = stops - self._ends  # from a row counted within the ranges to its number in the store
        self.size = int((stops - starts).sum())
        self.block_rows = block_rows
        self.seed = seed
        self._suffix = f" {group}" if group else ""

    def rows(self, epoch: int, start: int, stop: int) -> Tensor:
        """The rows at places `start` to `stop` - 1 of an epoch's order; int64 [stop - start].

        They come ascending, since order within a batch means nothing and locality does.
        """
        if start == stop:
            return torch.empty(0, dtype=torch.int64)
        blocks, key = -(-self.size // self.block_rows), f"{self.seed} {epoch}{self._suffix}"
        # Were the last block as long as the others, the places behind it would lie further back.
        missing = -self.size % self.block_rows
        short_end = (place_of_last(blocks, key) + 1) * self.block_rows - missing
        first = start + missing * (start >= short_end)
        end = stop + missing * (stop > short_end)
        slots = range(first // self.block_rows, -(-end // self.block_rows))
        begins = images_of(blocks, key, slots.start, slots.stop) * self.block_rows
        ends = np.minimum(begins + self.block_rows, self.size)
        ends[-1] = min(ends[-1], begins[-1] + end - (slots.stop - 1) * self.block_rows)
        begins[0] += first - slots.start * self.block_rows
        return torch.from_numpy(self._expanded(np.sort(begins), np.sort(ends)))

    def spread(self, count: int) -> Tensor:
        """Rows spread evenly over all of them, int64 [count] or less, ascending."""
        count = min(count, self.size)
        if not count:
            return torch.empty(0, dtype=torch.int64)
        return self.physical((2 * np.arange(count) + 1) * self.size // (2 * count))

    def physical(self, counted: npt.NDArray[np.int64]) -> Tensor:
        """Row numbers of rows counted within the ranges alone, 0 … size - 1, ascending; int64 [n] in and out."""
        return torch.from_numpy(self._expanded(counted, counted + 1))

    def _expanded(self, begins: npt.NDArray[np.int64], ends: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Row numbers of begins[0] … ends[0] - 1, begins[1] … ends[1] - 1 and so on, all ascending."""
        ranges = np.searchsorted(self._ends, begins, side="right")
        torn = np.flatnonzero(ends > self._ends[ranges])
        if len(torn):
            last = np.searchsorted(self._ends, ends[torn] - 1, side="right")
            cuts = np.concatenate([self._ends[a:b] for a, b in zip(ranges[torn], last, strict=True)])
            begins, ends = np.sort(np.append(begins, cuts)), np.sort(np.append(ends, cuts))
            ranges = np.searchsorted(self._ends, begins, side="right")
        lengths = ends - begins
        done = np.cumsum(lengths)
        rows: npt.NDArray[np.int64] = np.repeat(ends + self._gaps[ranges] - done, lengths) + np.arange(done[-1])
        return rows


def _joined(ranges: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """First rows and rows after the last of the ranges, without empty ones and with those that touch made one."""
    starts, stops = ranges[ranges[:, 1] > ranges[:, 0]].T
    apart = starts[1:] != stops[:-1]
    return starts[np.append(True, apart)[: len(starts)]], stops[np.append(apart, True)[: len(stops)]]
