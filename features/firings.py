"""The sampled rows latent by latent: what tokens a latent fires on and which latents beside it is counted from them.

Shapes: n sampled rows, E entries, s latents.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from features.entries import runs
from features.row_sample import SampledRows


class Firings(NamedTuple):
    """Some firings of every latent, evenly spread over those in the sample; by latent, within a latent by row."""

    latents: Tensor
    """[E] int64, ascending."""
    rows: Tensor
    """[E] int64 places in the sample."""
    magnitudes: Tensor
    """[E] float32 |value|."""
    in_sample: Tensor
    """[s] int64 how often each fired in the sample, those that were left out too."""

    @classmethod
    def of(cls, sample: SampledRows, d_sae: int, most: int) -> Firings:
        """At most `most` of each latent."""
        order = sample.latents.sort(stable=True).indices
        latents = sample.latents[order]
        different, counts, within = runs(latents)
        # n of c evenly spread: the i-th is kept where ⌊i n / c⌋ is another than before
        of_each = counts.repeat_interleave(counts)
        kept = of_each.clamp_max(most)
        chosen = (within * kept // of_each) != ((within - 1) * kept).div(of_each, rounding_mode="floor")
        order = order[chosen]
        rows = torch.arange(len(sample.counts)).repeat_interleave(sample.counts)
        in_sample = torch.zeros(d_sae, dtype=torch.int64)
        in_sample[different.long()] = counts
        return cls(latents[chosen].long(), rows[order], sample.values[order].abs(), in_sample)
