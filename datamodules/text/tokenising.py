"""Documents into token ids, many at once on all cores."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from tokenizers import Encoding, Tokenizer
from transformers import PreTrainedTokenizerBase

from datamodules.text.corpus import Document

# The tokenizer works on many documents at once on all cores; what it holds is bounded by these.
DOCUMENTS_A_CALL = 64
CHARACTERS_A_CALL = 1_000_000

# Longer documents are tokenised in pieces, because a tokenizer needs some hundred bytes a character while it works.
LONG_DOCUMENT = 2_000_000
# By how many characters the pieces overlap, and how many tokens on either side of a seam must be the same in both.
OVERLAP_OF_PIECES = 4_000
AGREEMENT = 32

Ids = npt.NDArray[np.int32]


class TokenisedDocument(NamedTuple):
    """The tokens of one document."""

    number: int
    """Of the document in the order of reading, from 0."""
    ids: Ids
    """Token ids without special tokens, int32 [tokens]."""


def joining_tokens(tokenizer: PreTrainedTokenizerBase) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The token that begins a context ([CLS], else beginning-of-text) and the one that ends a document ([SEP], else
    end-of-text).

    Each is a tuple of one token id, or empty where the tokenizer has no such token.
    """
    return (
        _first_of(tokenizer.cls_token_id, tokenizer.bos_token_id),
        _first_of(tokenizer.sep_token_id, tokenizer.eos_token_id),
    )


def template_tokens(tokenizer: PreTrainedTokenizerBase) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The special tokens that the tokenizer puts before and after a text; `joining_tokens` where it puts none."""
    # Asked by trying: a post-processor does not tell its template.
    encoded = tokenizer("a", return_special_tokens_mask=True, verbose=False)
    ids, is_special = list(encoded["input_ids"]), list(encoded["special_tokens_mask"])
    if not any(is_special) or all(is_special):
        return joining_tokens(tokenizer)
    first, last = is_special.index(0), len(ids) - is_special[::-1].index(0)
    return tuple(ids[:first]), tuple(ids[last:])


def _first_of(*token_ids: int | None) -> tuple[int, ...]:
    return tuple(token_id for token_id in token_ids if token_id is not None)[:1]


def tokenise(documents: Iterable[Document], tokenizer: PreTrainedTokenizerBase) -> Iterator[TokenisedDocument]:
    """Yields the token ids of document after document.

    Text that merely looks like a special token is tokenised as text.

    Args:
        documents: Read as they are needed; only a bounded number is held at a time.
        tokenizer: A fast tokenizer.
    """
    backend = _backend(tokenizer)
    for first, texts in _grouped(documents):
        if len(texts) == 1 and len(texts[0]) > LONG_DOCUMENT:
            yield TokenisedDocument(first, ids_in_pieces(texts[0], tokenizer))
            continue
        # Without offsets, which nobody needs here and which cost a third of the time.
        encodings = backend.encode_batch_fast(texts, add_special_tokens=False)
        for offset, encoding in enumerate(encodings):
            yield TokenisedDocument(first + offset, np.array(encoding.ids, dtype=np.int32))


def ids_in_pieces(
    text: str,
    tokenizer: PreTrainedTokenizerBase,
    piece: int = CHARACTERS_A_CALL,
    overlap: int = OVERLAP_OF_PIECES,
) -> Ids:
    """Token ids of a long text, the same as in one go, with a bounded part of the text at work at a time.

    Pieces overlap, and are joined where both have the same tokens for a while on either side of the seam. Where two
    never come to agree, the whole text is tokenised in one go.

    Args:
        text: Of any length.
        tokenizer: A fast tokenizer.
        piece: Characters by which the beginnings of two pieces are apart.
        overlap: Characters that a piece shares with the next.
    """
    backend = _backend(tokenizer)
    pieces = (
        _Piece.of(backend.encode(text[first : first + piece + overlap], add_special_tokens=False), first)
        for first in range(0, max(1, len(text) - overlap), piece)
    )
    ids, begin, last = list[Ids](), 0, None
    for one, other in pairwise(pieces):
        seam = _seam(one, other)
        if seam is None or seam[0] < begin:
            return np.array(backend.encode_batch_fast([text], add_special_tokens=False)[0].ids, dtype=np.int32)
        ids.append(one.ids[begin : seam[0]])
        begin, last = seam[1], other
    if last is None:
        return np.array(backend.encode_batch_fast([text], add_special_tokens=False)[0].ids, dtype=np.int32)
    return np.concatenate([*ids, last.ids[begin:]])


class _Piece(NamedTuple):
    """Tokens of a part of a text, and the characters of the whole text at which each of them begins."""

    ids: Ids
    starts: npt.NDArray[np.int64]

    @classmethod
    def of(cls, encoding: Encoding, first: int) -> _Piece:
        starts = np.array([start for start, _ in encoding.offsets], dtype=np.int64)
        return cls(np.array(encoding.ids, dtype=np.int32), starts + first)


def _seam(one: _Piece, other: _Piece) -> tuple[int, int] | None:
    """The index in each piece from which on the tokens of the other can be taken, or None."""
    shared = np.intersect1d(one.starts, other.starts)
    # From the middle outwards, because both ends are where a piece lacks what is around it.
    for start in shared[np.argsort(abs(shared - (other.starts[:1].sum() + one.starts[-1:].sum()) / 2), kind="stable")]:
        here, there = (int(np.searchsorted(part.starts, start)) for part in (one, other))
        around = [
            (part.ids[index - AGREEMENT : index + AGREEMENT], part.starts[index - AGREEMENT : index + AGREEMENT])
            for part, index in ((one, here), (other, there))
            if AGREEMENT <= index <= len(part.ids) - AGREEMENT
        ]
        if len(around) == 2 and all(np.array_equal(a, b) for a, b in zip(*around, strict=True)):
            return here, there
    return None


def _backend(tokenizer: PreTrainedTokenizerBase) -> Tokenizer:
    """The tokenizer's inner part, set to read text as text and all of it."""
    backend: Tokenizer = tokenizer.backend_tokenizer
    backend.no_padding()
    backend.no_truncation()
    backend.encode_special_tokens = True
    return backend


def _grouped(documents: Iterable[Document]) -> Iterator[tuple[int, list[str]]]:
    """Yields (number of the first document, texts); a long text comes alone."""
    first, texts, characters = 0, list[str](), 0
    for document in documents:
        if texts and (len(document.text) > LONG_DOCUMENT):
            yield first, texts
            first, texts, characters = first + len(texts), [], 0
        texts.append(document.text)
        characters += len(document.text)
        if len(texts) >= DOCUMENTS_A_CALL or characters >= CHARACTERS_A_CALL:
            yield first, texts
            first, texts, characters = first + len(texts), [], 0
    if texts:
        yield first, texts
