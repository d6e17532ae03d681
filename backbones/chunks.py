"""Texts of a batch in chunks that a model reads at once.

Shapes: u texts of a batch, t tokens of these, c texts of a chunk, l tokens of the longest of these.

Texts are sorted by length and cut where the padded chunk would exceed a budget of tokens, or its padding a small share
of that: so next to nothing is padded, and a chunk's activations stay in a CPU's caches. Which texts share a chunk does
not change what they become.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from datamodules.triplets.batch import TokenisedTexts

PADDED_SHARE = 1 / 32
"""Of a chunk's budget that may be padding. Another chunk costs a CPU what some 64 more tokens would, and a cut where
padding comes to as much as a cut costs is near the best: 192 texts of functions and their docstrings, in chunks of 2048
tokens, then have 4.5% of padding in 14 chunks, and 13.5% in 8 without this limit."""


class PaddedTexts(NamedTuple):
    """c texts, padded behind to the longest of them."""

    tokens: Tensor
    """[c, l] int64 ids; padding is 0."""
    real: Tensor
    """[c, l] bool: no padding."""
    is_padded: bool
    """Whether there is any padding, known without asking the device."""


class Chunk(NamedTuple):
    """Some texts of a batch, each in every tokenisation."""

    texts: tuple[PaddedTexts, ...]
    """The same c texts for each `Tokenisation`."""
    places: Tensor
    """[c] int64: which of the batch's u texts they are, on their device."""


def cut(texts: Sequence[TokenisedTexts], budgets: Sequence[int]) -> list[Chunk]:
    """All texts in chunks, longest first, so that memory is short in the first chunk or in none.

    Args:
        texts: the same u texts in every tokenisation.
        budgets: for each tokenisation, the padded tokens of a chunk; a longer text is a chunk by itself.
    """
    lengths = torch.stack([part.lengths.cpu() for part in texts], dim=1)
    order = lengths.sum(dim=1).argsort(descending=True, stable=True)
    starts = [part.lengths.cumsum(0) - part.lengths for part in texts]
    chunks = []
    for first, end in _bounds(lengths[order].tolist(), budgets):
        places = order[first:end]
        on_device = places.to(texts[0].tokens.device)
        padded = (
            _padded(part.tokens, start[on_device], lengths[places, index])
            for index, (part, start) in enumerate(zip(texts, starts, strict=True))
        )
        chunks.append(Chunk(tuple(padded), on_device))
    return chunks


def in_batch_order(parts: Sequence[Tensor], chunks: Sequence[Chunk]) -> Tensor:
    """What was made of each chunk, [c, …], at the places of its texts: [u, …], with a gradient."""
    order = torch.cat([chunk.places for chunk in chunks])
    back = torch.empty_like(order)
    back[order] = torch.arange(len(order), device=order.device)
    return torch.cat(list(parts)).index_select(0, back)


def _bounds(lengths: Sequence[Sequence[int]], budgets: Sequence[int]) -> list[tuple[int, int]]:
    """First and end of each chunk in texts of these lengths, each chunk as long as the budgets allow."""
    bounds, first, longest, tokens = [], 0, [0] * len(budgets), 0
    for index, text in enumerate(lengths):
        wider = [max(pair) for pair in zip(longest, text, strict=True)]
        tokens += sum(text)
        rows = index + 1 - first
        is_full = any(rows * width > budget for width, budget in zip(wider, budgets, strict=True))
        if rows > 1 and (is_full or rows * sum(wider) - tokens > PADDED_SHARE * sum(budgets)):
            bounds.append((first, index))
            first, wider, tokens = index, list(text), sum(text)
        longest = wider
    return [*bounds, (first, len(lengths))] if lengths else []


def _padded(tokens: Tensor, starts: Tensor, lengths: Tensor) -> PaddedTexts:
    """Texts [c] of a row of tokens [t]; `lengths` lie on the CPU, the rest on any device."""
    longest = int(lengths.max())
    within = torch.arange(longest, device=tokens.device)
    real = within < lengths.to(tokens.device).unsqueeze(1)
    places = torch.where(real, starts.unsqueeze(1) + within, 0)
    return PaddedTexts(torch.where(real, tokens[places], 0).long(), real, int(lengths.min()) < longest)
