"""The other way round: which latents fire on a token.

Shapes: n sampled rows, s latents, v different tokens, m latents of each.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from features.entries import runs
from features.row_sample import SampledRows

FEWEST_ROWS = 4
"""A token that is rarer in the sample says nothing."""


class TokenLatents(NamedTuple):
    """Latents of each token that was seen often enough, by share · log₂(share / density): those first that fire on it
    nearly always and hardly ever elsewhere.
    """

    tokens: Tensor
    """int64 [v] token ids, ascending."""
    latents: Tensor
    """int64 [v, m]; −1 where there are no more."""
    shares: Tensor
    """[v, m] on how large a share of the token's rows the latent fires."""


def token_latents(sample: SampledRows, d_sae: int, count: int, most_entries: int = 2**22) -> TokenLatents:
    """The `count` latents of each token.

    Args:
        sample: the rows.
        d_sae: s.
        count: m.
        most_entries: about how many entries are looked at: those of evenly spread rows.
    """
    rows = len(sample.counts)
    step = max(1, -(-len(sample.latents) // most_entries))
    chosen = torch.zeros(rows, dtype=torch.bool)
    chosen[::step] = True
    latents = sample.latents[chosen.repeat_interleave(sample.counts)].long()
    tokens, numbers, of_token = torch.unique(sample.tokens[chosen].long(), return_inverse=True, return_counts=True)
    mine = numbers.repeat_interleave(sample.counts[chosen])
    found, together, _ = runs((mine * d_sae + latents).sort().values)
    number, latent = found // d_sae, found % d_sae
    shares = together / of_token[number]
    density = torch.bincount(latents, minlength=d_sae) / max(1, len(numbers))
    scores = shares * (shares / density[latent]).log2()
    typical = (of_token[number] >= FEWEST_ROWS) & (scores > 0)
    number, latent, shares, scores = (column[typical] for column in (number, latent, shares, scores))
    order = scores.sort(descending=True, stable=True).indices
    order = order[number[order].sort(stable=True).indices]
    _, _, within = runs(number[order])
    order, within = order[within < count], within[within < count]
    kept, counts, _ = runs(number[order])
    line = torch.arange(len(kept)).repeat_interleave(counts)
    best, best_shares = torch.full((len(kept), count), -1), torch.zeros(len(kept), count)
    best[line, within], best_shares[line, within] = latent[order], shares[order]
    return TokenLatents(tokens[kept], best, best_shares)
