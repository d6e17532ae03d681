"""A uniform sample of rows with all that fired on them, in one pass with memory that does not grow.

Shapes: b rows of a batch, n sampled rows, E entries, s latents.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from features.entries import narrowest
from features.hashing import uniform
from features.windows import BatchRows
from lightning_modules.functional import Codes

NO_TOKEN = -1


class SampledRows(NamedTuple):
    """n rows, on the CPU."""

    tokens: Tensor
    """int32 [n] token ids."""
    before: Tensor
    """int32 [n] the token before it in the same document, NO_TOKEN where there is none."""
    after: Tensor
    """int32 [n] the token after it."""
    counts: Tensor
    """int32 [n] how many latents fired on it."""
    latents: Tensor
    """[E] their numbers, row by row."""
    values: Tensor
    """float32 [E]."""

    @property
    def starts(self) -> Tensor:
        """int64 [n] the first entry of each row."""
        return self.counts.cumsum(0) - self.counts


class RowSample:
    """Keeps rows whose hash is below a bound, which is halved whenever there are too many entries.

    Args:
        most_entries: kept at most, about; twice that is held for a moment.
    """

    def __init__(self, d_sae: int, most_entries: int) -> None:
        self._most = most_entries
        self._bound = 1.0
        self._kind = narrowest(d_sae)
        self._entries = 0
        self._parts: list[tuple[Tensor, SampledRows]] = []

    def update(self, codes: Codes, rows: BatchRows) -> None:
        """Takes in a batch."""
        fired = codes.fired()
        counts = torch.bincount(fired.rows, minlength=codes.batch).int()
        offsets = torch.tensor([-1, 1], device=rows.numbers.device)
        there, real = rows.neighbours(torch.arange(codes.batch, device=offsets.device), offsets)
        before, after = rows.tokens[there].where(real, NO_TOKEN).int().unbind(1)
        part = SampledRows(rows.tokens.int(), before, after, counts, fired.latents.to(self._kind), fired.values.float())
        hashes = uniform(rows.numbers)
        mask = rows.counted & (hashes < self._bound)
        kept = SampledRows(*(column.cpu() for column in _chosen(part, mask)))
        self._parts.append((hashes[mask].cpu(), kept))
        self._entries += len(kept.latents)
        while self._entries > self._most:
            self._halve()

    def _halve(self) -> None:
        self._bound /= 2
        self._parts = [
            (hashes[hashes < self._bound], _chosen(part, hashes < self._bound)) for hashes, part in self._parts
        ]
        self._entries = sum(len(part.latents) for _, part in self._parts)

    def rows(self) -> SampledRows:
        """What has been kept so far."""
        if not self._parts:
            none = torch.zeros(0, dtype=torch.int32)
            return SampledRows(none, none, none, none, none.to(self._kind), torch.zeros(0))
        columns = zip(*(part for _, part in self._parts), strict=True)
        return SampledRows(*(torch.cat(column) for column in columns))


def _chosen(part: SampledRows, mask: Tensor) -> SampledRows:
    """The rows that a mask [n] keeps."""
    if bool(mask.all()):
        return part
    entries = mask.repeat_interleave(part.counts)
    return SampledRows(*(column[mask] for column in part[:4]), *(column[entries] for column in part[4:]))
