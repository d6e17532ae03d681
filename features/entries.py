"""What fired in a batch, latent by latent.

Shapes: b rows of a batch, E entries, s latents.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lightning_modules.functional import Codes


class Entries(NamedTuple):
    """The entries of a batch that are not 0, by latent and within a latent by row."""

    batch: int
    """b."""
    latents: Tensor
    """[E] int64, ascending."""
    places: Tensor
    """[E] int64, the row of each in the batch, ascending within a latent."""
    values: Tensor
    """[E] float32."""
    keys: Tensor
    """[E] int64, ascending: latent · b + row."""

    @classmethod
    def of(cls, codes: Codes) -> Entries:
        """Those of a batch's codes."""
        fired = codes.fired()
        # they come row by row already, so a stable sort by latent is all it takes, and narrow integers sort faster
        order = fired.latents.to(narrowest(codes.d_sae)).sort(stable=True).indices
        latents, places = fired.latents[order], fired.rows[order]
        values = fired.values[order].float()
        return cls(codes.batch, latents, places, values, latents * codes.batch + places)

    def at(self, latents: Tensor, places: Tensor) -> Tensor:
        """Values of some latents on some rows, 0 where they did not fire.

        Args:
            latents: int64, any shape.
            places: int64 of the same shape, in [0, b).
        """
        if not len(self.keys):
            return torch.zeros(latents.shape, device=latents.device)
        wanted = latents * self.batch + places
        found = torch.searchsorted(self.keys, wanted).clamp_max(len(self.keys) - 1)
        return self.values[found].where(self.keys[found] == wanted, 0.0)

    def kept(self, mask: Tensor) -> Entries:
        """Those that a mask [E] keeps."""
        return Entries(self.batch, *(column[mask] for column in self[1:]))


def narrowest(numbers: int) -> torch.dtype:
    """The narrowest integers that hold 0 to numbers − 1."""
    return next(kind for kind in (torch.int16, torch.int32, torch.int64) if numbers - 1 <= torch.iinfo(kind).max)


def runs(ascending: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of numbers [E] in ascending order: the different ones [u], how often each occurs [u], and the place of every
    number within its own run [E].
    """
    different, counts = torch.unique_consecutive(ascending, return_counts=True)
    starts = counts.cumsum(0) - counts
    within = torch.arange(len(ascending), device=ascending.device) - starts.repeat_interleave(counts)
    return different, counts, within
