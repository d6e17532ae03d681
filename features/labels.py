"""A short label for a latent by a rule that a person can check, from the tokens that it fires on.

The rule. There are five kinds of patterns (`features.patterns`): the token, the token before it, the token after it,
the pair that ends with it and the pair that begins with it. Patterns of one kind exclude each other, so their shares
add up. The label names the patterns of one kind: the one whose best three patterns have the highest sum of scores, a
score being share · log₂(lift). A pattern is named when it explains at least a tenth of the latent's activation; when
those that are named explain less than a quarter together, the latent gets no label.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from features.patterns import Kind, Patterns
from features.row_sample import NO_TOKEN

MOST_NAMED = 3
LEAST_SHARE = 0.1
LEAST_EXPLAINED = 0.25

_WORDS: Mapping[Kind, str] = {
    "token": "{}",
    "before": "after {}",
    "after": "before {}",
    "ending": "{}",
    "beginning": "{}",
}


@dataclass(frozen=True)
class Label:
    """Attributes:
    kind: of the patterns; None where there is no label.
    patterns: token ids of each that is named, one or two.
    explained: share of the latent's activation on which one of them holds.
    """

    kind: Kind | None
    patterns: tuple[tuple[int, ...], ...] = ()
    explained: float = 0.0

    def words(self, text_of: Callable[[int], str]) -> str:
        """As a person reads it; empty where there is no label.

        Args:
            text_of: the text of a token id, with the space before it, if any.
        """
        if self.kind is None:
            return ""
        named = [_named([text_of(token) for token in pattern]) for pattern in self.patterns]
        return _WORDS[self.kind].format(" · ".join(named))


def _named(texts: list[str]) -> str:
    """A part of a word begins with dots: without them it would look like a word."""
    inside = texts[0][:1].isalnum()
    return ("…" if inside else "") + "".join(map(_shown, texts)).strip()


def _shown(text: str) -> str:
    """A token of blanks has to be seen."""
    return text if text.strip() else text.replace("\n", "↵").replace("\t", "⇥").replace(" ", "␣") or "␀"


def automatic_labels(patterns: Mapping[Kind, Patterns]) -> list[Label]:
    """One for each latent."""
    kinds = list(patterns)
    named = torch.stack([found.shares[:, :MOST_NAMED] >= LEAST_SHARE for found in patterns.values()])
    scores = torch.stack([found.scores[:, :MOST_NAMED] for found in patterns.values()]) * named
    shares = torch.stack([found.shares[:, :MOST_NAMED] for found in patterns.values()]) * named
    explained = shares.sum(dim=2)
    sums = scores.sum(dim=2).where(explained >= LEAST_EXPLAINED, -1.0)
    best = sums.argmax(dim=0).tolist()
    return [
        _label(kinds[kind], patterns[kinds[kind]], latent, float(explained[kind, latent]))
        if sums[kind, latent] > 0
        else Label(None)
        for latent, kind in enumerate(best)
    ]


def _label(kind: Kind, patterns: Patterns, latent: int, explained: float) -> Label:
    named = (patterns.shares[latent, :MOST_NAMED] >= LEAST_SHARE).tolist()
    ids = patterns.tokens[latent, :MOST_NAMED].tolist()
    chosen = tuple(
        tuple(token for token in pair if token != NO_TOKEN) for pair, use in zip(ids, named, strict=True) if use
    )
    return Label(kind, chosen, explained)
