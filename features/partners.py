"""Which latents fire together.

Shapes: n sampled rows, s latents, m partners of each, c latents that are counted at once.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from features.firings import Firings
from features.row_sample import SampledRows

_COUNTED_AT_ONCE = 2**21
"""Counts [c, s] that are kept at once."""


class CoFiring(NamedTuple):
    """Partners of each latent, those first that belong most to it: by n_ij / √(n_i n_j), the cosine of the two latents'
    firing, which a partner that fires everywhere has little of.
    """

    latents: Tensor
    """int64 [s, m]; −1 where there are no more."""
    shares: Tensor
    """[s, m] in how large a share of the latent's firings the partner fires too."""


def co_firing(sample: SampledRows, firings: Firings, count: int) -> CoFiring:
    """The `count` partners of each latent, counted on some of its firings."""
    d_sae = len(firings.in_sample)
    count = min(count, max(0, d_sae - 1))
    at_once = max(1, _COUNTED_AT_ONCE // d_sae)
    ends = torch.bincount(firings.latents, minlength=d_sae).cumsum(0)
    parts = []
    for first in range(0, d_sae, at_once):
        last = min(first + at_once, d_sae)
        begin = int(ends[first - 1]) if first else 0
        parts.append(_of_some(sample, firings, slice(begin, int(ends[last - 1])), first, last, count))
    return CoFiring(*(torch.cat(column) for column in zip(*parts, strict=True)))


def _of_some(
    sample: SampledRows, firings: Firings, entries: slice, first: int, last: int, count: int
) -> tuple[Tensor, Tensor]:
    """Partners of the latents `first` to `last` − 1, whose firings are `entries`."""
    d_sae, lines = len(firings.in_sample), last - first
    latents, rows = firings.latents[entries] - first, firings.rows[entries]
    fired = sample.counts[rows].long()
    # every entry of every row on which one of these latents fired
    ends = fired.cumsum(0)
    places = torch.arange(int(ends[-1]) if len(ends) else 0)
    places += (sample.starts[rows] - (ends - fired)).repeat_interleave(fired)
    keys = (latents * d_sae).repeat_interleave(fired) + sample.latents[places].long()
    together = torch.bincount(keys, minlength=lines * d_sae).view(lines, d_sae).float()
    own = torch.bincount(latents, minlength=lines).clamp_min(1).unsqueeze(1)
    together[torch.arange(lines), torch.arange(first, last)] = 0
    shares = together / own
    mine = firings.in_sample[first:last].clamp_min(1).unsqueeze(1)
    cosines = shares * (mine / firings.in_sample.clamp_min(1)).sqrt()
    # a stable order, so that equal partners stand by their numbers
    best = cosines.sort(dim=1, descending=True, stable=True).indices[:, :count]
    shares = shares.gather(1, best)
    return best.where(shares > 0, -1), shares
