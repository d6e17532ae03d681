"""Text as packed contexts of a model, for extraction."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from typing import Any

from jsonargparse.typing import PositiveInt
from lightning.pytorch import LightningDataModule

from backbones import load_tokenizer, tokenizer_sha256
from datamodules.text import Corpus, Document, TokenBatch, pack
from run_store import UserError


class ContextLoader:
    """The batches of a `TextContexts` as the Trainer reads them, with a length for its progress bar."""

    def __init__(self, text: TextContexts) -> None:
        self._text = text

    def __iter__(self) -> Iterator[TokenBatch]:
        return self._text.batches()

    def __len__(self) -> int:
        """The most batches that can come.

        Raises:
            TypeError: only the corpus sets an end, and it is not known beforehand.
        """
        if self._text.total_tokens is None:
            raise TypeError("the number of batches is not known before the corpus is read")
        return math.ceil(self._text.total_tokens / (self._text.context_length * self._text.batch_size))


class TextContexts(LightningDataModule):
    """Packs a corpus into contexts of equal length.

    Args:
        corpus: Where the documents come from.
        tokenizer: The model whose tokenizer is used: a folder, `package:NAME` or a hub id.
        context_length: Tokens in a context, special ones included.
        max_tokens: The contexts hold at most this many tokens in all; null reads the whole corpus.
        batch_size: Contexts in one forward of the model.
    """

    def __init__(
        self,
        corpus: Corpus,
        tokenizer: str,
        context_length: PositiveInt = 128,
        max_tokens: PositiveInt | None = None,
        batch_size: PositiveInt = 16,
    ) -> None:
        super().__init__()
        self.corpus = corpus
        self.tokenizer = tokenizer
        self.context_length: int = context_length
        self.max_tokens: int | None = max_tokens
        self.batch_size: int = batch_size
        self._read: list[tuple[str, str]] = []  # name and sha256 of each document given to the tokenizer
        self._documents_used = 0

    @property
    def total_tokens(self) -> int | None:
        """The most tokens that `batches` can yield, or None when only the corpus sets an end."""
        return None if self.max_tokens is None else self.max_tokens // self.context_length * self.context_length

    def batches(self) -> Iterator[TokenBatch]:
        """Yields the contexts, from the first document on at every call.

        Raises:
            UserError: the tokenizer cannot be loaded, or there is not one whole context.
        """
        self._refuse_impossible_lengths()
        self._read, self._documents_used = [], 0
        tokenizer = load_tokenizer(self.tokenizer)
        for batch in pack(self._recorded(), tokenizer, self.context_length, self.batch_size, self.max_tokens):
            # The tokenizer reads ahead; what it read in vain is not part of the result.
            self._documents_used = max(self._documents_used, int(batch.documents.max()) + 1)
            yield batch
        if not self._documents_used:
            raise UserError(
                f"the corpus ({len(self._read)} documents) has not enough text for one context of "
                f"{self.context_length} tokens: give it more text or lower context_length"
            )

    def predict_dataloader(self) -> ContextLoader:
        """The same as `batches`, for the Trainer."""
        return ContextLoader(self)

    def document_names(self) -> list[str]:
        """Names by document number, complete once `batches` is exhausted."""
        return [name for name, _ in self._read[: self._documents_used]]

    def fingerprint(self) -> str:
        """Hexadecimal sha256 over names and texts of the documents used, complete once `batches` is exhausted."""
        listing = "\n".join(f"{sha256} {name}" for name, sha256 in self._read[: self._documents_used])
        return hashlib.sha256(listing.encode()).hexdigest()

    def describe(self) -> dict[str, Any]:
        """What decides the contexts, as plain JSON values; `batch_size` decides nothing but speed.

        Raises:
            UserError: the tokenizer cannot be found.
        """
        return {
            "corpus": self.corpus.describe(),
            "tokenizer": self.tokenizer,
            "tokenizer_sha256": tokenizer_sha256(self.tokenizer),
            "context_length": self.context_length,
            "max_tokens": self.max_tokens,
        }

    def _recorded(self) -> Iterator[Document]:
        for document in self.corpus.documents():
            self._read.append((document.name, hashlib.sha256(document.text.encode()).hexdigest()))
            yield document

    def _refuse_impossible_lengths(self) -> None:
        if self.context_length < 2:
            raise UserError("context_length 1 leaves no room for text after the special token: set it to 2 or more")
        if self.max_tokens is not None and self.max_tokens < self.context_length:
            raise UserError(
                f"max_tokens {self.max_tokens} is less than one context of {self.context_length} tokens: raise it"
            )
