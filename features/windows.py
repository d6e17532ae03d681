"""What latents are on the rows around the one that they fired on.

Shapes: b rows of a batch, m places, w rows of a window, s latents.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from features.entries import Entries


class BatchRows(NamedTuple):
    """Where the rows of a batch come from: [b] each, on the device of the codes."""

    numbers: Tensor
    """int64 row numbers in the store."""
    documents: Tensor
    """Document numbers."""
    tokens: Tensor
    """Token ids."""
    counted: Tensor
    """bool; False for rows that are there only so that others see their neighbours: they are counted elsewhere."""

    @classmethod
    def whole(cls, numbers: Tensor, documents: Tensor, tokens: Tensor) -> BatchRows:
        """A batch all of whose rows count."""
        return cls(numbers, documents, tokens, torch.ones_like(numbers, dtype=torch.bool))

    def neighbours(self, places: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor]:
        """The places of the rows around some, [m, w], and whether each is really the row that far away in the same
        document; where it is not, the place is one that can be read all the same.

        Args:
            places: int64 [m].
            offsets: int64 [w].
        """
        wanted = places.unsqueeze(1) + offsets
        there = wanted.clamp(0, len(self.numbers) - 1)
        apart = self.numbers[there] - self.numbers[places].unsqueeze(1)
        same = self.documents[there] == self.documents[places].unsqueeze(1)
        return there, (apart == offsets) & same & (wanted == there)


class Windows:
    """The windows of one batch.

    Args:
        entries: all that fired in it.
        rows: where its rows come from.
        reach: rows on either side, (w − 1) / 2.
    """

    def __init__(self, entries: Entries, rows: BatchRows, reach: int) -> None:
        self._entries = entries
        self._rows = rows
        self._offsets = torch.arange(-reach, reach + 1, device=rows.numbers.device)

    def of(self, latents: Tensor, places: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Numbers of rows in the store [m], values there [m] and around them [m, w], nan where there is no neighbour.

        Args:
            latents: int64 [m].
            places: int64 [m] in the batch.
        """
        there, real = self._rows.neighbours(places, self._offsets)
        around = self._entries.at(latents.unsqueeze(1).expand_as(there), there).where(real, torch.nan)
        return self._rows.numbers[places], around[:, len(self._offsets) // 2], around
