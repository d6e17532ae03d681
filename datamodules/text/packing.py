"""Text into contexts of equal length, without padding."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from datamodules.text.corpus import Document

# The tokenizer works on many documents at once; what it holds is bounded by these and by the longest document.
DOCUMENTS_A_CALL = 64
CHARACTERS_A_CALL = 1_000_000

Columns = npt.NDArray[np.int64]  # [3, n]: token id, document number and position of n tokens of the stream


class TokenBatch(NamedTuple):
    """Contexts of a model, with where each token comes from."""

    tokens: Tensor
    """Token ids, int64 [batch, length]."""
    documents: Tensor
    """Number of the token's document in the order of reading, int64 [batch, length]; -1 for special tokens."""
    positions: Tensor
    """Index of the token in its own document, int64 [batch, length]; -1 for special tokens."""


def pack(
    documents: Iterable[Document],
    tokenizer: PreTrainedTokenizerBase,
    context_length: int,
    batch_size: int,
    max_tokens: int | None = None,
) -> Iterator[TokenBatch]:
    """Joins the documents into one stream of tokens and cuts it into contexts.

    Each document is followed by the tokenizer's separator (or end-of-text) token and each context begins with its [CLS]
    (or beginning-of-text) token, where it has one. Text that merely looks like a special token is tokenised as text.
    What is left at the end of the stream and fills no whole context is dropped: every context is `context_length`
    tokens long and none is padded.

    Args:
        documents: Read as they are needed; only a bounded number is held at a time.
        tokenizer: A fast tokenizer.
        context_length: Tokens in a context, special ones included.
        batch_size: Contexts in a batch; only the last batch may have fewer.
        max_tokens: Stop before the contexts exceed this many tokens in all, special ones included; None for no limit.
    """
    prefix = _first_of(tokenizer.cls_token_id, tokenizer.bos_token_id)
    separator = _first_of(tokenizer.sep_token_id, tokenizer.eos_token_id)
    body = context_length - len(prefix)
    contexts_left = sys.maxsize if max_tokens is None else max_tokens // context_length

    stream: Columns = np.empty((3, 0), dtype=np.int64)
    for columns in _tokenised(documents, tokenizer, separator):
        stream = np.concatenate([stream, columns], axis=1)
        while contexts_left and stream.shape[1] >= (contexts := min(batch_size, contexts_left)) * body:
            yield _batch(stream[:, : contexts * body], prefix, body)
            stream = stream[:, contexts * body :]
            contexts_left -= contexts
        if not contexts_left:
            return
    contexts = min(stream.shape[1] // body, contexts_left)
    if contexts:
        yield _batch(stream[:, : contexts * body], prefix, body)


def _tokenised(
    documents: Iterable[Document], tokenizer: PreTrainedTokenizerBase, separator: list[int]
) -> Iterator[Columns]:
    """Yields the tokens of some whole documents at a time."""
    for first, texts in _grouped(documents):
        encoded = tokenizer(
            texts,
            add_special_tokens=False,
            split_special_tokens=True,
            padding=False,
            truncation=False,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,
        )
        yield np.concatenate(
            [_columns(ids, first + offset, separator) for offset, ids in enumerate(encoded["input_ids"])], axis=1
        )


def _grouped(documents: Iterable[Document]) -> Iterator[tuple[int, list[str]]]:
    """Yields (number of the first document, texts)."""
    first, texts, characters = 0, list[str](), 0
    for document in documents:
        texts.append(document.text)
        characters += len(document.text)
        if len(texts) >= DOCUMENTS_A_CALL or characters >= CHARACTERS_A_CALL:
            yield first, texts
            first, texts, characters = first + len(texts), [], 0
    if texts:
        yield first, texts


def _columns(ids: list[int], document: int, separator: list[int]) -> Columns:
    columns = np.full((3, len(ids) + len(separator)), -1, dtype=np.int64)
    columns[0] = ids + separator
    columns[1, : len(ids)] = document
    columns[2, : len(ids)] = np.arange(len(ids))
    return columns


def _batch(columns: Columns, prefix: list[int], body: int) -> TokenBatch:
    contexts = columns.reshape(3, -1, body)
    heads = np.full((3, contexts.shape[1], len(prefix)), -1, dtype=np.int64)
    heads[0] = prefix
    tokens, documents, positions = torch.from_numpy(np.concatenate([heads, contexts], axis=2)).unbind(0)
    return TokenBatch(tokens, documents, positions)


def _first_of(*token_ids: int | None) -> list[int]:
    """The first token id that the tokenizer has, as a list of one, or an empty list."""
    return [token_id for token_id in token_ids if token_id is not None][:1]
