"""A histogram of magnitudes for every latent, in one pass and without knowing any scale beforehand.

Shapes: E entries, s latents.
"""

from __future__ import annotations

import torch
from torch import Tensor

from features.entries import Entries

BINS = 64
"""A power of two."""
_LOG_BINS = BINS.bit_length() - 1
_LEAST = torch.iinfo(torch.int32).min // 2


class MagnitudeHistograms:
    """Counts of |value| in `BINS` equal bins from 0, for each latent by itself.

    A latent's bins are 2^e wide, with the least e for which all of its values lie below the last bin's end. When a
    larger value comes, the bins widen by merging 2, 4, … neighbours; no value is put in a wrong bin by that, so that
    the result depends on the values alone and not on their order. At least half of the bins are in use.

    Args:
        d_sae: s.
        device: of what is kept.
    """

    def __init__(self, d_sae: int, device: torch.device) -> None:
        self.counts = torch.zeros(d_sae, BINS, dtype=torch.int64, device=device)
        self.largest = torch.zeros(d_sae, device=device)
        self._exponents = torch.full((d_sae,), _LEAST, dtype=torch.int32, device=device)

    @property
    def widths(self) -> Tensor:
        """[s] of each latent's bins; 0 where it has not fired."""
        return torch.ldexp(torch.ones_like(self.largest), self._exponents).where(self.largest > 0, 0.0)

    def update(self, entries: Entries) -> None:
        """Takes in a batch."""
        magnitudes = entries.values.abs()
        self._widen(self.largest.scatter_reduce(0, entries.latents, magnitudes, "amax"))
        bins = torch.ldexp(magnitudes, -self._exponents[entries.latents]).long()
        added = torch.bincount(entries.latents * BINS + bins, minlength=self.counts.numel())
        self.counts += added.view_as(self.counts)

    def _widen(self, largest: Tensor) -> None:
        # largest < 2^exponent, so bins of 2^(exponent − log₂ BINS) reach above it
        exponents = (torch.frexp(largest).exponent - _LOG_BINS).where(largest > 0, _LEAST)
        changed = (exponents > self._exponents).nonzero().flatten()
        if len(changed):
            merged = (exponents[changed] - self._exponents[changed]).clamp_max(_LOG_BINS)
            target = torch.arange(BINS, device=largest.device) >> merged.unsqueeze(1)
            old = self.counts[changed]
            self.counts[changed] = torch.zeros_like(old).scatter_add(1, target.long(), old)
            self._exponents[changed] = exponents[changed]
        self.largest = largest
