"""A shuffle that needs few shards at a time, for stores whose shards must be fetched."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from datamodules.shards.permutation import Permutation
from datamodules.shards.shuffle import BlockShuffle


class GroupedShuffle:
    """The order in which epochs visit the rows of some ranges, each row exactly once an epoch, group by group.

    The shards are dealt anew every epoch into groups of `mixed_shards`, and the rows of a group, which follow each
    other, are shuffled by `BlockShuffle`. So a batch needs the shards of one group, or of two where one ends, and each
    shard is needed once an epoch. One group of all shards is `BlockShuffle` itself. Any place of any epoch is computed
    without what came before it.

    Args:
        ranges: int64 [ranges, 2], ascending first rows and rows after the last; empty ranges may be among them.
        shard_rows: rows of each shard; ranges may reach over several.
        mixed_shards: shards in a group; None puts all into one.
        block_rows: rows that stay together, at least 1.
        seed: with the epoch, all that the order depends on.
    """

    def __init__(
        self, ranges: Tensor, shard_rows: npt.NDArray[np.int64], mixed_shards: int | None, block_rows: int, seed: int
    ) -> None:
        self._ranges, self._firsts = _cut(ranges.numpy(), np.cumsum(shard_rows))
        sizes = np.concatenate([[0], np.cumsum(self._ranges[:, 1] - self._ranges[:, 0])])
        self._rows = np.diff(sizes[self._firsts])
        self._shards = np.flatnonzero(self._rows)  # none of the others is ever needed
        self.size = int(sizes[-1])
        self.mixed_shards = mixed_shards or 0
        self.block_rows, self.seed = block_rows, seed
        self._epoch = lru_cache(maxsize=2)(self._deal)
        self._group = lru_cache(maxsize=3)(self._shuffle_of)

    def rows(self, epoch: int, start: int, stop: int) -> Tensor:
        """The rows at places `start` to `stop` - 1 of an epoch's order; int64 [stop - start], ascending."""
        if start == stop:
            return torch.empty(0, dtype=torch.int64)
        _, ends = self._epoch(epoch)
        parts = []
        for group in range(*self._groups_at(epoch, start, stop)):
            begin = int(ends[group - 1]) if group else 0
            shuffle = self._group(epoch, group)
            parts.append(shuffle.rows(epoch, max(start - begin, 0), min(stop, int(ends[group])) - begin))
        return parts[0] if len(parts) == 1 else torch.cat(parts).sort().values

    def spread(self, count: int) -> Tensor:
        """Rows spread evenly over the first group of the first epoch, int64 [count] or less, ascending."""
        return self._group(0, 0).spread(count) if self.size else torch.empty(0, dtype=torch.int64)

    def groups_from(self, epoch: int, place: int) -> Iterator[npt.NDArray[np.int64]]:
        """The shards of each group from the one of a place on, up to the end of the epoch after."""
        first = self._groups_at(epoch, place, place + 1)[0]
        yield from self._epoch(epoch)[0][first:]
        yield from self._epoch(epoch + 1)[0]

    def shards_at(self, epoch: int, start: int, stop: int) -> set[int]:
        """The shards of the groups that places `start` to `stop` - 1 fall into."""
        return {int(s) for group in range(*self._groups_at(epoch, start, stop)) for s in self._epoch(epoch)[0][group]}

    def _groups_at(self, epoch: int, start: int, stop: int) -> tuple[int, int]:
        ends = self._epoch(epoch)[1]
        first, last = np.searchsorted(ends, [start, stop - 1], side="right")
        return int(min(first, len(ends) - 1)), int(min(last, len(ends) - 1)) + 1

    def _deal(self, epoch: int) -> tuple[list[npt.NDArray[np.int64]], npt.NDArray[np.int64]]:
        """The shards of every group, and the place after the last of each."""
        count = len(self._shards)
        if not count:
            return [self._shards], np.zeros(1, dtype=np.int64)
        dealt = self._shards[Permutation(count, f"{self.seed} {epoch} shards")(np.arange(count))]
        step = self.mixed_shards or count
        groups = [np.sort(dealt[first : first + step]) for first in range(0, count, step)]
        return groups, np.cumsum([self._rows[group].sum() for group in groups])

    def _shuffle_of(self, epoch: int, group: int) -> BlockShuffle:
        shards = self._epoch(epoch)[0][group]
        pieces = [self._ranges[self._firsts[shard] : self._firsts[shard + 1]] for shard in shards]
        # groups of one size would otherwise be in one order, block for block
        return BlockShuffle(torch.from_numpy(np.concatenate(pieces)), self.block_rows, self.seed, group)


def _cut(
    ranges: npt.NDArray[np.int64], shard_ends: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Ranges without empty ones and cut where shards end, int64 [n, 2], and the first of each shard, and n."""
    starts, stops = ranges[ranges[:, 1] > ranges[:, 0]].T
    inside = shard_ends[_is_inside(shard_ends, starts, stops)]
    starts, stops = np.sort(np.append(starts, inside)), np.sort(np.append(stops, inside))
    firsts = np.searchsorted(starts, np.concatenate([[0], shard_ends]))
    return np.stack([starts, stops], axis=1), firsts


def _is_inside(
    points: npt.NDArray[np.int64], starts: npt.NDArray[np.int64], stops: npt.NDArray[np.int64]
) -> npt.NDArray[np.bool_]:
    """Which points lie within a range, not at its ends."""
    if not len(starts):
        return np.zeros(len(points), dtype=np.bool_)
    place = np.searchsorted(starts, points, side="left") - 1
    inside: npt.NDArray[np.bool_] = (place >= 0) & (points < stops[np.maximum(place, 0)])
    return inside
