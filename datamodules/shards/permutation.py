"""Permutations of any size that cost no memory: each image is computed when it is asked for."""

from __future__ import annotations

import hashlib
import math
from functools import lru_cache

import numpy as np
import numpy.typing as npt

WINDOW = 4096  # images that are computed, and remembered, at a time
_ROUNDS = 4  # a Feistel network of good round functions needs no more to look random


class Permutation:
    """A keyed permutation of 0 … size - 1 in constant memory.

    A Feistel network over a grid just large enough for `size`; a number sent outside is sent on until it is inside.

    Args:
        size: at least 1.
        key: any text; another key gives another permutation.
    """

    def __init__(self, size: int, key: str) -> None:
        self.size = size
        self._height = math.isqrt(size - 1) + 1
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


@lru_cache(maxsize=2)
def place_of_last(size: int, key: str) -> int:
    """Where a permutation puts its last number."""
    return int(Permutation(size, key).inverse(np.array([size - 1]))[0])


def images_of(size: int, key: str, start: int, stop: int) -> npt.NDArray[np.int64]:
    """Where a permutation sends start … stop - 1."""
    windows = range(start // WINDOW, (stop - 1) // WINDOW + 1)
    images = np.concatenate([_window(size, key, window) for window in windows])
    return images[start - windows[0] * WINDOW :][: stop - start]


@lru_cache(maxsize=2)
def _window(size: int, key: str, window: int) -> npt.NDArray[np.int64]:
    """Some consecutive images of a permutation, remembered: one by one they would cost more than reading the rows."""
    return Permutation(size, key)(np.arange(window * WINDOW, min(size, (window + 1) * WINDOW)))
