"""Rows in store order that are only some of a store's: those of a split, or of a sample of its documents."""

from __future__ import annotations

import torch
from torch import Tensor


class RowRanges:
    """The rows of some ranges one after the other, without a list of them.

    Args:
        ranges: int64 [n, 2] first row of each and the row after its last, ascending and apart.
    """

    def __init__(self, ranges: Tensor) -> None:
        self._starts = ranges[:, 0]
        self._ends = (ranges[:, 1] - ranges[:, 0]).cumsum(0)
        self.size = int(self._ends[-1]) if len(ranges) else 0

    def rows(self, start: int, stop: int) -> Tensor:
        """int64 [stop − start] numbers of the rows at places `start` to `stop` − 1."""
        places = torch.arange(start, stop)
        number = torch.searchsorted(self._ends, places, right=True)
        # how far each lies behind the last row of its range
        return self._starts[number] + places - torch.cat([self._ends.new_zeros(1), self._ends])[number]


def some_documents(ranges: Tensor, most: int | None, seed: int = 0) -> Tensor:
    """Ranges of whole documents, drawn until there are `most` rows; the last one drawn is cut to fit.

    Args:
        ranges: int64 [n, 2] of the documents, in store order.
        most: rows; None takes all.
        seed: draws the documents.

    Returns:
        int64 [m, 2], in store order, none of them empty.
    """
    ranges = ranges[ranges[:, 1] > ranges[:, 0]]
    if most is None or not len(ranges):
        return ranges
    order = torch.randperm(len(ranges), generator=torch.Generator().manual_seed(seed))
    lengths = (ranges[:, 1] - ranges[:, 0])[order]
    room = (most - (lengths.cumsum(0) - lengths)).clamp_min(0)
    kept = torch.empty_like(lengths)
    kept[order] = torch.minimum(lengths, room)
    cut = torch.stack([ranges[:, 0], ranges[:, 0] + kept], dim=1)
    return cut[kept > 0]
