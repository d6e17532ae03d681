"""Token ids of documents into contexts: what a model reads at once."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
import numpy.typing as npt

from datamodules.text.tokenising import TokenisedDocument

Columns = npt.NDArray[np.int64]  # [3, n]: token id, document number and position of n tokens

# Positions of tokens that give no row.
SPECIAL = -1
REPEATED = -2

# Documents are cut into contexts in pieces of this many tokens, so that a long one is not held three columns wide.
TOKENS_A_PIECE = 65_536


@dataclass(frozen=True)
class ContextRules:
    """How contexts are cut.

    Args:
        length: Tokens in a context, special ones included: exactly so many when packed, at most when not.
        prefix: Special tokens at the head of every context.
        suffix: Special tokens at the end of every document (packed) or of every context (unpacked).
        packed: Whether documents are joined.
        overlap: Tokens repeated from the context before.
        truncate: Whether an unpacked document gives its first context alone.
        min_tokens: Documents with fewer tokens are left out.
        max_tokens: Stop before the contexts exceed this many tokens in all, special ones included; None for no limit.
    """

    length: int
    prefix: tuple[int, ...] = ()
    suffix: tuple[int, ...] = ()
    packed: bool = True
    overlap: int = 0
    truncate: bool = False
    min_tokens: int = 1
    max_tokens: int | None = None

    @property
    def room(self) -> int:
        """Tokens of a context that are not always special."""
        return self.length - len(self.prefix) - (0 if self.packed else len(self.suffix))


@dataclass
class TextCounts:
    """What did not make it into contexts."""

    short_documents: int = 0
    truncated_documents: int = 0
    truncated_tokens: int = 0


def cut(documents: Iterable[TokenisedDocument], rules: ContextRules, counts: TextCounts) -> Iterator[Columns]:
    """Yields contexts in the order of the documents.

    Packed: documents are joined into one stream, each followed by the suffix, and the stream is cut into contexts of
    equal length. What is left at its end and fills no whole context is dropped; nothing is padded.

    Unpacked: every context is prefix, tokens of one document, suffix. A document that does not fit is split into
    several, or truncated.

    A document without a token gives nothing.

    Args:
        documents: Read as they are needed.
        rules: How contexts are cut; `room` must be greater than `overlap`.
        counts: Is added to as documents are read.
    """
    kept = _long_enough(documents, rules.min_tokens, counts)
    if not rules.packed:
        return _unpacked(kept, rules, counts)
    return islice(_packed(kept, rules), None if rules.max_tokens is None else rules.max_tokens // rules.length)


def _long_enough(
    documents: Iterable[TokenisedDocument], min_tokens: int, counts: TextCounts
) -> Iterator[TokenisedDocument]:
    for document in documents:
        if len(document.ids) >= max(min_tokens, 1):
            yield document
        elif len(document.ids):
            counts.short_documents += 1


def _packed(documents: Iterable[TokenisedDocument], rules: ContextRules) -> Iterator[Columns]:
    step = rules.room - rules.overlap
    pending, size, repeated = list[Columns](), 0, False
    for columns in _stream(documents, rules.suffix):
        pending.append(columns)
        size += columns.shape[1]
        if size < rules.room:
            continue
        stream = np.concatenate(pending, axis=1)
        count = (size - rules.room) // step + 1
        yield from _equal_contexts(stream, count, rules, repeated)
        rest = stream[:, count * step :].copy()
        pending, size, repeated = [rest], rest.shape[1], rules.overlap > 0


def _stream(documents: Iterable[TokenisedDocument], separator: tuple[int, ...]) -> Iterator[Columns]:
    """Yields the documents' tokens, a document or a piece of a long one at a time."""
    for number, ids in documents:
        for first in range(0, len(ids), TOKENS_A_PIECE):
            piece = ids[first : first + TOKENS_A_PIECE]
            end = separator if first + len(piece) == len(ids) else ()
            yield _context(piece, number, first, (), end)


def _equal_contexts(stream: Columns, count: int, rules: ContextRules, repeated: bool) -> Iterator[Columns]:
    """The first `count` contexts of the stream; `repeated` says that the first of them overlaps one before it."""
    head = len(rules.prefix)
    bodies = np.lib.stride_tricks.sliding_window_view(stream, rules.room, axis=1)[:, :: rules.room - rules.overlap]
    contexts = np.full((count, 3, rules.length), SPECIAL, dtype=np.int64)
    contexts[:, :, head:] = bodies[:, :count].transpose(1, 0, 2)
    contexts[:, 0, :head] = rules.prefix
    contexts[:, 1, :head] = contexts[:, 1, head : head + 1]
    contexts[0 if repeated else 1 :, 2, head : head + rules.overlap] = REPEATED
    yield from contexts


def _unpacked(documents: Iterable[TokenisedDocument], rules: ContextRules, counts: TextCounts) -> Iterator[Columns]:
    step = rules.room - rules.overlap
    tokens_left = sys.maxsize if rules.max_tokens is None else rules.max_tokens
    for number, ids in documents:
        size = len(ids)
        last = 0 if rules.truncate else max(0, size - rules.overlap - 1) // step * step
        for first in range(0, last + 1, step):
            context = _context(ids[first : first + rules.room], number, first, rules.prefix, rules.suffix)
            if first:
                context[2, len(rules.prefix) :][: rules.overlap] = REPEATED
            tokens_left -= context.shape[1]
            if tokens_left < 0:
                return
            if rules.truncate and size > rules.room:
                counts.truncated_documents += 1
                counts.truncated_tokens += size - rules.room
            yield context


def _context(
    ids: npt.NDArray[np.int32], document: int, first: int, prefix: tuple[int, ...], suffix: tuple[int, ...]
) -> Columns:
    """Tokens of a document from its position `first` on, between special tokens."""
    head, body = len(prefix), len(prefix) + len(ids)
    columns = np.full((3, body + len(suffix)), SPECIAL, dtype=np.int64)
    columns[0, :head] = prefix
    columns[0, head:body] = ids
    columns[0, body:] = suffix
    columns[1] = document
    columns[2, head:body] = np.arange(first, first + len(ids))
    return columns
