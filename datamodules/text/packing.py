"""Contexts into batches and windows of batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from datamodules.text.contexts import Columns


class TokenBatch(NamedTuple):
    """Contexts of a model, with where each token comes from."""

    tokens: Tensor
    """Token ids, int64 [batch, length]; shorter contexts are padded on the right."""
    documents: Tensor
    """Number of the token's document in the order of reading, int64 [batch, length]; a special token has the number of
    the text that it stands beside, padding has -1."""
    positions: Tensor
    """Index of the token in its own document, int64 [batch, length]; negative where it has none: -1 (special tokens and
    padding) or -2 (tokens that `overlap` repeats from the context before, special ones among them)."""
    lengths: Tensor
    """Tokens of each context that are not padding, int64 [batch]."""


class TokenWindow(NamedTuple):
    """A fixed number of contexts that follow each other in the corpus: what is sorted, shared out and resumed whole."""

    number: int
    """Of the window in corpus order, from 0."""
    batches: list[TokenBatch]
    """What the model reads; contexts of different lengths are sorted, the longest first."""
    order: Tensor
    """For every context, batch after batch, its place in corpus order within the window, int64 [contexts]."""


def real_tokens(tokens: Tensor, lengths: Tensor) -> Tensor:
    """bool [batch, length]: all tokens but the padding."""
    return torch.arange(tokens.shape[1], device=lengths.device) < lengths[:, None]


def grouped(contexts: Iterable[Columns], size: int) -> Iterator[list[Columns]]:
    """Yields `size` contexts at a time; only the last group may have fewer."""
    source = iter(contexts)
    while group := list(islice(source, size)):
        yield group


def make_window(number: int, contexts: Sequence[Columns], batch_size: int) -> TokenWindow:
    """Sorts contexts by their lengths and makes batches of them.

    Args:
        number: Of the window.
        contexts: In corpus order, each int64 [3, length]: token ids, documents and positions.
        batch_size: Contexts in a batch; only the last may have fewer.
    """
    lengths = np.array([context.shape[1] for context in contexts])
    # Stable, so that contexts of one length stay in corpus order.
    order = np.argsort(-lengths, kind="stable")
    batches = [
        _make_batch([contexts[place] for place in order[first : first + batch_size]])
        for first in range(0, len(order), batch_size)
    ]
    return TokenWindow(number, batches, torch.from_numpy(order))


def _make_batch(contexts: Sequence[Columns]) -> TokenBatch:
    lengths = torch.tensor([context.shape[1] for context in contexts])
    columns = np.full((3, len(contexts), int(lengths.max())), -1, dtype=np.int64)
    # Any id of the vocabulary would do: the model is told not to look at it.
    columns[0] = 0
    for row, context in enumerate(contexts):
        columns[:, row, : context.shape[1]] = context
    tokens, documents, positions = torch.from_numpy(columns).unbind(0)
    return TokenBatch(tokens, documents, positions, lengths)
