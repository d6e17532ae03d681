"""A shuffle that is a formula: any position of any epoch is computed without what came before it.

That makes resuming exact (a cursor is the whole state) and costs no memory, however many rows there are.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

_ROUNDS = 4  # a Feistel network of good round functions needs no more to look random
_WINDOW = 4096  # blocks whose permutation is computed at a time


class Permutation:
    """A keyed permutation of 0 … size - 1 in constant memory.

    A Feistel network over a grid just large enough for `size`; a number sent outside is sent on until it is inside.

    Args:
        size: at least 1.
        key: any text; another key gives another permutation.
    """

    def __init__(self, size: int, key: str) -> None:
        self.size = size
        self._height = int(np.ceil(np.sqrt(size)))
        self._width = -(-size // self._height)
        digest = hashlib.blake2b(key.encode(), digest_size=8 * _ROUNDS).digest()
        self._keys = np.frombuffer(digest, dtype="<u8").astype(np.uint64)

    def __call__(self, positions: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Where each position is sent; int64 [n] in and out."""
        return self._walk(positions, forwards=True)

    def inverse(self, images: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """The positions that are sent to `images`; int64 [n] in and out."""
        return self._walk(images, forwards=False)

    def _walk(self, numbers: npt.NDArray[np.int64], forwards: bool) -> npt.NDArray[np.int64]:
        numbers = self._network(numbers, forwards)
        while len(outside := np.flatnonzero(numbers >= self.size)):
            numbers[outside] = self._network(numbers[outside], forwards)
        return numbers

    def _network(self, numbers: npt.NDArray[np.int64], forwards: bool) -> npt.NDArray[np.int64]:
        rows, columns = np.divmod(numbers, self._width)
        for round_ in range(_ROUNDS) if forwards else reversed(range(_ROUNDS)):
            sign = 1 if forwards else -1
            if round_ % 2:
                rows = (rows + sign * self._mix(columns, round_, self._height)) % self._height
            else:
                columns = (columns + sign * self._mix(rows, round_, self._width)) % self._width
        return rows * self._width + columns

    def _mix(self, half: npt.NDArray[np.int64], round_: int, modulus: int) -> npt.NDArray[np.int64]:
        """The round function: the finaliser of splitmix64, keyed; 0 … modulus - 1."""
        mixed = half.astype(np.uint64) + self._keys[round_]
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        mixed ^= mixed >> np.uint64(31)
        remainder: npt.NDArray[np.uint64] = mixed % np.uint64(modulus)
        return remainder.astype(np.int64)


class BlockShuffle:
    """The order in which epochs visit the rows of some ranges, each row exactly once an epoch.

    The rows, ranges laid end to end, are cut into blocks of `block_rows` and the blocks are permuted. Larger blocks
    read faster from a disk; smaller ones mix better. The last block may be shorter, wherever the permutation puts it.

    Args:
        ranges: int64 [ranges, 2], ascending first rows and rows after the last; empty ranges may be among them.
        block_rows: rows that stay together, at least 1.
        seed: with the epoch, all that the order depends on.
    """

    def __init__(self, ranges: Tensor, block_rows: int, seed: int) -> None:
        starts, stops = _joined(ranges.numpy())
        self._ends = np.cumsum(stops - starts)
        self._gaps = stops - self._ends  # from a row counted within the ranges to its number in the store
        self.size = int((stops - starts).sum())
        self.block_rows = block_rows
        self.seed = seed

    def rows(self, epoch: int, start: int, stop: int) -> Tensor:
        """The rows at places `start` to `stop` - 1 of an epoch's order; int64 [stop - start].

        They come ascending, since order within a batch means nothing and locality does.
        """
        if start == stop:
            return torch.empty(0, dtype=torch.int64)
        blocks, key = -(-self.size // self.block_rows), f"{self.seed} {epoch}"
        # Were the last block as long as the others, the places behind it would lie further back.
        missing = -self.size % self.block_rows
        short_end = (_place_of_last(blocks, key) + 1) * self.block_rows - missing
        first = start + missing * (start >= short_end)
        end = stop + missing * (stop > short_end)
        slots = range(first // self.block_rows, -(-end // self.block_rows))
        begins = _images(blocks, key, slots.start, slots.stop) * self.block_rows
        ends = np.minimum(begins + self.block_rows, self.size)
        ends[-1] = min(ends[-1], begins[-1] + end - (slots.stop - 1) * self.block_rows)
        begins[0] += first - slots.start * self.block_rows
        return self.physical(_expanded(np.sort(begins), np.sort(ends)))

    def physical(self, counted: npt.NDArray[np.int64]) -> Tensor:
        """Row numbers of rows counted within the ranges alone, 0 … size - 1; int64 [n] in and out."""
        return torch.from_numpy(counted + self._gaps[np.searchsorted(self._ends, counted, side="right")])


def _expanded(begins: npt.NDArray[np.int64], ends: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The numbers begins[0] … ends[0] - 1, begins[1] … ends[1] - 1 and so on."""
    lengths = ends - begins
    done = np.cumsum(lengths)
    numbers: npt.NDArray[np.int64] = np.repeat(ends - done, lengths) + np.arange(done[-1])
    return numbers


@lru_cache(maxsize=2)
def _place_of_last(size: int, key: str) -> int:
    """Where a permutation puts its last number."""
    return int(Permutation(size, key).inverse(np.array([size - 1]))[0])


def _images(size: int, key: str, start: int, stop: int) -> npt.NDArray[np.int64]:
    """Where a permutation sends start … stop - 1."""
    windows = range(start // _WINDOW, (stop - 1) // _WINDOW + 1)
    images = np.concatenate([_window(size, key, window) for window in windows])
    return images[start - windows[0] * _WINDOW :][: stop - start]


@lru_cache(maxsize=2)
def _window(size: int, key: str, window: int) -> npt.NDArray[np.int64]:
    """Some consecutive images of a permutation, remembered: one by one they would cost more than reading the rows."""
    return Permutation(size, key)(np.arange(window * _WINDOW, min(size, (window + 1) * _WINDOW)))


def _joined(ranges: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """First rows and rows after the last of the ranges, without empty ones and with those that touch made one."""
    starts, stops = ranges[ranges[:, 1] > ranges[:, 0]].T
    apart = starts[1:] != stops[:-1]
    return starts[np.append(True, apart)[: len(starts)]], stops[np.append(apart, True)[: len(stops)]]
