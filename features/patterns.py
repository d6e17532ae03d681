"""Which tokens a latent fires on, and which stand beside them, against how often they stand anywhere.

Shapes: n sampled rows, E entries, s latents, m patterns of a latent.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from features.entries import runs
from features.firings import Firings
from features.row_sample import NO_TOKEN, SampledRows

Kind = Literal["token", "before", "after", "ending", "beginning"]
KINDS: tuple[Kind, ...] = get_args(Kind)
"""What a pattern says of a row: its token; the token before it, or after it; the pair of tokens that ends, or begins,
with it."""

FEWEST_HITS = 2
LEAST_LIFT = 2**0.5
"""Half a bit."""


class Patterns(NamedTuple):
    """The patterns of one kind that are typical of each latent, the one with the highest score first.

    The score is share · log₂(lift): how much of the latent's activation the pattern explains, times the bits by which
    it is more frequent there than anywhere. Patterns that do not repeat (FEWEST_HITS), or are hardly more frequent than
    anywhere (LEAST_LIFT), are left out.
    """

    tokens: Tensor
    """int64 [s, m, 2] the token ids of a pattern, the second NO_TOKEN where it is of one token; both where there are no
    more patterns."""
    shares: Tensor
    """[s, m] of the latent's activation, summed over sampled firings, the share where the pattern holds."""
    lifts: Tensor
    """[s, m] share / share of all sampled rows on which the pattern holds."""
    scores: Tensor
    """[s, m]; 0 where there are no more."""


def typical_patterns(sample: SampledRows, firings: Firings, count: int) -> dict[Kind, Patterns]:
    """The `count` most typical patterns of each kind for each latent."""
    tokens, before, after = (column.long() for column in (sample.tokens, sample.before, sample.after))
    vocabulary = int(tokens.max()) + 1 if len(tokens) else 1
    pairs: Mapping[Kind, tuple[Tensor, Tensor | None]] = {
        "token": (tokens, None),
        "before": (before, None),
        "after": (after, None),
        "ending": (before, tokens),
        "beginning": (tokens, after),
    }
    return {kind: _of_kind(first, second, vocabulary, firings, count) for kind, (first, second) in pairs.items()}


def _of_kind(first: Tensor, second: Tensor | None, vocabulary: int, firings: Firings, count: int) -> Patterns:
    keys = first if second is None else first * vocabulary + second
    keys = keys.where(first != NO_TOKEN, NO_TOKEN)
    if second is not None:
        keys = keys.where(second != NO_TOKEN, NO_TOKEN)
    # patterns get numbers, and each how often it holds on any row
    different, numbers, everywhere = torch.unique(keys, return_inverse=True, return_counts=True)
    mine = numbers[firings.rows]
    cells, order = (firings.latents * max(1, len(different)) + mine).sort(stable=True)
    found, hits, _ = runs(cells)
    cell = torch.arange(len(found)).repeat_interleave(hits)
    explained = torch.zeros(len(found)).index_add_(0, cell, firings.magnitudes[order])
    latents, pattern = found // max(1, len(different)), found % max(1, len(different))
    whole = torch.zeros(len(firings.in_sample)).index_add_(0, firings.latents, firings.magnitudes)
    shares = explained / whole[latents]
    lifts = shares * len(keys) / everywhere[pattern]
    typical = (hits >= FEWEST_HITS) & (lifts > LEAST_LIFT) & (different[pattern] != NO_TOKEN)
    latents, pattern, shares, lifts = (column[typical] for column in (latents, pattern, shares, lifts))
    found_patterns = different[pattern]
    parts = (
        (found_patterns, torch.full_like(found_patterns, NO_TOKEN))
        if second is None
        else (found_patterns // vocabulary, found_patterns % vocabulary)
    )
    return _best(latents, torch.stack(parts, dim=1), shares, lifts, len(firings.in_sample), count)


def _best(latents: Tensor, tokens: Tensor, shares: Tensor, lifts: Tensor, d_sae: int, count: int) -> Patterns:
    scores = shares * lifts.log2()
    order = scores.sort(descending=True, stable=True).indices
    order = order[latents[order].sort(stable=True).indices]
    _, _, within = runs(latents[order])
    order, within = order[within < count], within[within < count]
    line = latents[order]
    kept_tokens = torch.full((d_sae, count, 2), NO_TOKEN)
    kept_tokens[line, within] = tokens[order]
    figures = [torch.zeros(d_sae, count) for _ in range(3)]
    for kept, column in zip(figures, (shares, lifts, scores), strict=True):
        kept[line, within] = column[order]
    return Patterns(kept_tokens, *figures)
