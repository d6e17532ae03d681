"""What a batch of triplets is made of.

Shapes: b examples of a batch, n negatives of the one that has most, u different texts among them, t tokens of these.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor


class Tokenisation(NamedTuple):
    """How an encoder wants its texts; a concatenation of encoders has one of each."""

    tokenizer: str
    """A folder, `package:NAME` or a hub id."""
    revision: str | None
    """Of a tokenizer on the hub."""
    max_length: int
    """Tokens of a text, special ones among them; longer texts are cut."""
    prompts: Mapping[str, str]
    """What is put in front of the texts of a column (`anchor`, `positive`, `negative`); nothing by default."""


class TokenisedTexts(NamedTuple):
    """u texts, one behind the other and without padding."""

    tokens: Tensor
    """[t] int32 ids, special tokens among them."""
    lengths: Tensor
    """[u] int64, each ≥ 1; they sum to t."""


class TripletBatch(NamedTuple):
    """b examples. Each text that occurs in them, with what is put in front of it, is there once."""

    texts: tuple[TokenisedTexts, ...]
    """The same u texts for each `Tokenisation`."""
    ids: Tensor
    """[u] int64: the number of each text in the data, the same in every batch and on every rank."""
    anchors: Tensor
    """[b] int64 places among the u texts."""
    positives: Tensor
    """[b] int64 places."""
    negatives: Tensor
    """[b, n] int64 places; -1 where an example has fewer; n may be 0."""
    scores: Tensor | None
    """[b] what a scored pair's similarity is said to be, or [b, 1 + n] what a teacher says of the positive and of each
    negative; None where the data has none."""
    examples: Tensor
    """[b] int64: the number of each example in the data."""
