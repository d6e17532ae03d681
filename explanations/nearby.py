"""A label for a latent that fires on no particular token, but near some: what a passage is about.

The states that an embedding model pools are alike all over a passage, so most of what an autoencoder finds in them has
no token, and the rule of `features.labels` gives no label. Here the rule is: of the tokens within REACH of where a
latent fires, in the same document, those are named whose share · log₂(lift) is highest, a share being of the latent's
activation and a lift against the share of all rows that have the token as near.

Shapes: n sampled rows, E firings, w = 2 REACH + 1 rows of a window, s latents.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from features import NO_TOKEN, Firings, SampledRows

REACH = 12
FIRINGS_LOOKED_AT = 96
ROWS_LOOKED_AT = 20_000
"""Evenly spread, for how often a token is near any row."""
FEWEST_HITS = 3
LEAST_SHARE = 0.1
LEAST_LIFT = 3.0
"""More than for a single token: a passage has many near, and some are more frequent there by chance."""
MOST_NAMED = 3


def nearby_labels(sample: SampledRows, d_sae: int, text_of: Callable[[int], str]) -> list[str]:
    """Of s latents, `near TOKEN · TOKEN`; empty where nothing is typical. Only words and parts of words are named.

    Args:
        sample: rows in the order of their documents.
        d_sae: s.
        text_of: the text of a token id, with the space before it, if any.
    """
    labels = [""] * d_sae
    if not len(sample.counts):
        return labels
    firings = Firings.of(sample, d_sae, FIRINGS_LOOKED_AT)
    segments = _segments(sample)
    vocabulary = int(sample.tokens.max()) + 1
    step = max(1, len(segments) // ROWS_LOOKED_AT)
    every = torch.arange(0, len(segments), step)
    _, near_any = _near(sample.tokens, segments, every, vocabulary)
    usual = torch.bincount(near_any, minlength=vocabulary) / len(every)
    which, token = _near(sample.tokens, segments, firings.rows, vocabulary)
    latents = firings.latents[which]
    cells, where, hits = torch.unique(latents * vocabulary + token, return_inverse=True, return_counts=True)
    explained = torch.zeros(len(cells)).index_add_(0, where, firings.magnitudes[which])
    whole = torch.zeros(d_sae).index_add_(0, firings.latents, firings.magnitudes)
    latent, token = cells // vocabulary, cells % vocabulary
    share = explained / whole[latent]
    # what is near none of the rows that were looked at is as if it were near one
    lift = share / usual[token].clamp_min(1 / len(every))
    typical = (hits >= FEWEST_HITS) & (share >= LEAST_SHARE) & (lift >= LEAST_LIFT)
    latent, token, score = latent[typical], token[typical], (share * lift.log2())[typical]
    found: dict[int, list[str]] = {}
    for at in score.argsort(descending=True, stable=True).tolist():
        found.setdefault(int(latent[at]), []).append(text_of(int(token[at])))
    for number, texts in found.items():
        named = _named(texts)
        labels[number] = f"near {' · '.join(named)}" if named else ""
    return labels


def _named(texts: Sequence[str]) -> list[str]:
    """Words of two letters at least, each once; parts of words, with dots in front, where there are no words."""
    different = dict.fromkeys(text for text in texts if len(text.strip()) > 1 and text.strip().isalnum())
    words = [text.strip() for text in different if text[:1].isspace()]
    return (words or [f"…{text}" for text in different])[:MOST_NAMED]


def _segments(sample: SampledRows) -> Tensor:
    """int64 [n] the same number for rows that follow each other in a document."""
    follows = (sample.before[1:] == sample.tokens[:-1]) & (sample.after[:-1] == sample.tokens[1:])
    begins = torch.ones(len(sample.tokens), dtype=torch.int64)
    begins[1:] = (~follows | (sample.before[1:] == NO_TOKEN)).long()
    return begins.cumsum(0)


def _near(tokens: Tensor, segments: Tensor, rows: Tensor, vocabulary: int) -> tuple[Tensor, Tensor]:
    """Every token near some rows, once for each of them: places in `rows`, and token ids.

    Args:
        tokens: [n] ids.
        segments: [n].
        rows: int64 [E].
        vocabulary: above all ids.
    """
    places = rows.unsqueeze(1) + torch.arange(-REACH, REACH + 1)
    inside = (places >= 0) & (places < len(tokens))
    places = places.clamp(0, len(tokens) - 1)
    inside &= segments[places] == segments[rows].unsqueeze(1)
    keys = torch.arange(len(rows)).unsqueeze(1) * vocabulary + tokens[places].long()
    different = torch.unique(keys[inside])
    return different // vocabulary, different % vocabulary
