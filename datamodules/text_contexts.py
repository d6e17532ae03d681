"""Text as contexts of a model, window by window."""

from __future__ import annotations

import copy
import hashlib
import math
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any, Literal

import numpy.typing as npt
from jsonargparse.typing import NonNegativeInt, PositiveInt
from lightning.pytorch import LightningDataModule
from transformers import PreTrainedTokenizerBase

from backbones import load_tokenizer, tokenizer_sha256
from datamodules.text import (
    Columns,
    ContextRules,
    Corpus,
    Document,
    HeldOut,
    TextCounts,
    TokenBatch,
    TokenisedDocument,
    TokenWindow,
    cut,
    grouped,
    joining_tokens,
    make_window,
    template_tokens,
    tokenise,
)
from run_store import Split, UserError


class WindowLoader:
    """This process's windows of a `TextContexts` as the Trainer reads them, with a length for its progress bar."""

    def __init__(self, text: TextContexts) -> None:
        self._text = text

    def __iter__(self) -> Iterator[TokenWindow]:
        return self._text.windows(*self._text.share())

    def __len__(self) -> int:
        """The most windows that can come.

        Raises:
            TypeError: only the corpus sets an end, and it is not known beforehand.
        """
        start, stop = self._text.share()
        if stop is None:
            if self._text.total_tokens is None or not self._text.packed:
                raise TypeError("the number of windows is not known before the corpus is read")
            stop = math.ceil(self._text.total_tokens / (self._text.context_length * self._text.contexts_a_window))
        return max(0, stop - start)


class _Reading:
    """What one pass over the corpus has met so far."""

    def __init__(self) -> None:
        self.counts = TextCounts()
        self.names: list[str] = []  # of the documents that contexts have reached, by number
        self.fingerprint = hashlib.sha256()
        self.fingerprints: list[str] = []  # at the end of every window so far
        self._ahead: deque[tuple[str, str]] = deque()  # name and sha256 of documents that only the tokenizer has read

    @property
    def documents(self) -> int:
        """How many documents the tokenizer was given; it reads ahead."""
        return len(self.names) + len(self._ahead)

    def record(self, documents: Iterable[Document]) -> Iterator[Document]:
        """Passes the documents on and remembers what they are called and what their text was."""
        for document in documents:
            try:
                sha256 = hashlib.sha256(document.text.encode()).hexdigest()
            except UnicodeEncodeError as error:
                raise UserError(
                    f"document {document.name} holds half of a surrogate pair at character {error.start + 1}, which is "
                    "no text: take it out of the corpus"
                ) from error
            self._ahead.append((document.name, sha256))
            yield document

    def reach(self, document: int) -> None:
        """Takes note that contexts have come to this document's number."""
        while len(self.names) <= document:
            name, sha256 = self._ahead.popleft()
            self.fingerprint.update(f"{chr(10) if self.names else ''}{sha256} {name}".encode())
            self.names.append(name)


class TextContexts(LightningDataModule):
    """Cuts a corpus into contexts of a model.

    Packed contexts are all `context_length` long and hold text of several documents; the end of the corpus that fills
    no context is dropped. Unpacked contexts hold one document each, or part of one, between the special tokens that the
    tokenizer's own template puts there; where it has none, [CLS] or beginning-of-text and [SEP] or end-of-text.

    Contexts come in windows of `batch_size × window_batches`, sorted by length within, so that little is padded. Where
    one process reads only some windows, those before them are tokenised too, but that is all.

    Args:
        corpus: Where the documents come from.
        tokenizer: The model whose tokenizer is used (a folder, `package:NAME` or a hub id), or a SentencePiece file.
        context_length: Tokens in a context, special ones included; of unpacked ones the most.
        max_tokens: The contexts hold at most this many tokens in all; null reads the whole corpus.
        batch_size: Contexts in one forward of the model.
        window_batches: Batches in a window.
        packed: Whether contexts hold text of several documents.
        bos: Whether contexts begin with the tokenizer's [CLS] or beginning-of-text token.
        separator: Whether documents (packed) or contexts (unpacked) end with its [SEP] or end-of-text token.
        overlap: Tokens of the context before that are repeated as context only: they give no rows.
        long_documents: What is done with unpacked documents that do not fit one context.
        min_tokens: Shorter documents are left out; null keeps them.
        revision: Of a tokenizer from the hub: a branch, tag or commit.
    """

    def __init__(
        self,
        corpus: Corpus,
        tokenizer: str,
        context_length: PositiveInt = 128,
        max_tokens: PositiveInt | None = None,
        batch_size: PositiveInt = 16,
        window_batches: PositiveInt = 16,
        packed: bool = True,
        bos: bool = True,
        separator: bool = True,
        overlap: NonNegativeInt = 0,
        long_documents: Literal["split", "truncate"] = "split",
        min_tokens: PositiveInt | None = None,
        revision: str | None = None,
    ) -> None:
        super().__init__()
        self.corpus = corpus
        self.tokenizer = tokenizer
        self.context_length: int = context_length
        self.max_tokens: int | None = max_tokens
        self.batch_size: int = batch_size
        self.window_batches: int = window_batches
        self.packed = packed
        self.bos = bos
        self.separator = separator
        self.overlap: int = overlap
        self.long_documents = long_documents
        self.min_tokens: int | None = min_tokens
        self.revision = revision
        self.first_window = 0
        """Where `predict_dataloader` begins, for a prediction that goes on; windows before it are not yielded."""
        self._reading = _Reading()
        self._window_count: int | None = None

    @property
    def contexts_a_window(self) -> int:
        """Contexts in every window but the last."""
        return self.batch_size * self.window_batches

    @property
    def total_tokens(self) -> int | None:
        """The most tokens that the windows can hold, padding not counted; None when only the corpus sets an end."""
        if self.max_tokens is None or not self.packed:
            return self.max_tokens
        return self.max_tokens // self.context_length * self.context_length

    @property
    def counts(self) -> TextCounts:
        """What the corpus, as far as it was read, has lost on its way into the windows."""
        return self._reading.counts

    def windows(self, start: int = 0, stop: int | None = None) -> Iterator[TokenWindow]:
        """Yields the windows from number `start` up to `stop`, the same ones at every call.

        Raises:
            UserError: the tokenizer cannot be loaded, settings contradict each other or the tokenizer, or the corpus
                gives not one context.
        """
        self._reading = reading = _Reading()
        if stop is not None and stop <= start:
            return
        for number, contexts in enumerate(self._grouped_contexts(reading)):
            if number >= start:
                yield make_window(number, contexts, self.batch_size)
            if number + 1 == stop:
                return

    def count_windows(self) -> int:
        """How many windows the corpus gives; takes a pass of the tokenizer over all of it at the first call.

        Raises:
            UserError: as `windows`.
        """
        if self._window_count is None:
            self._window_count = sum(1 for _ in self._grouped_contexts(_Reading()))
        return self._window_count

    def batches(self) -> Iterator[TokenBatch]:
        """Yields the batches of all windows.

        Raises:
            UserError: as `windows`.
        """
        for window in self.windows():
            yield from window.batches

    def share(self) -> tuple[int, int | None]:
        """The windows (start, stop) that `predict_dataloader` yields: contiguous, as even as can be between processes.

        A single process reads until the corpus ends, so that the windows need not be counted.
        """
        rank, processes = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        if processes == 1:
            return self.first_window, None
        count = self.count_windows()
        return max(self.first_window, rank * count // processes), (rank + 1) * count // processes

    def predict_dataloader(self) -> WindowLoader:
        """This process's share of the windows, for the Trainer."""
        return WindowLoader(self)

    def transfer_batch_to_device(self, batch: Any, device: Any, dataloader_idx: int) -> Any:
        """Leaves windows on the CPU: the extractor moves what the model reads, batch by batch."""
        return batch

    def part(
        self, part: Split, seed: int, validation_share: float, test_share: float, max_tokens: int | None
    ) -> TextContexts:
        """The same contexts of one part of the corpus alone; `HeldOut` says which documents are in it.

        Args:
            part: train, validation or test.
            seed: another seed holds other documents out.
            validation_share: expected share of the documents, 0 to 1.
            test_share: expected share of the documents, 0 to 1.
            max_tokens: its contexts hold at most so many tokens; None reads all of the part.
        """
        text = copy.copy(self)
        text.corpus = HeldOut(self.corpus, part, seed, validation_share, test_share)
        text.max_tokens = max_tokens
        text.first_window, text._reading, text._window_count = 0, _Reading(), None
        return text

    def context(self, ids: npt.NDArray[Any], tokenizer: PreTrainedTokenizerBase, open_end: bool = False) -> TokenBatch:
        """One text as a context by itself, between the special tokens that contexts have.

        Args:
            ids: [n] token ids without special tokens, at least one.
            tokenizer: That of the text.
            open_end: Nothing stands behind the text, so that it can be gone on with.

        Returns:
            A batch of one context; its document has the number 0.
        """
        begin, end = joining_tokens(tokenizer) if self.packed else template_tokens(tokenizer)
        prefix = begin if self.bos else ()
        suffix = end if self.separator and not self.packed and not open_end else ()
        rules = ContextRules(len(prefix) + len(ids) + len(suffix), prefix, suffix, packed=False)
        contexts = list(cut([TokenisedDocument(0, ids)], rules, TextCounts()))
        return make_window(0, contexts, 1).batches[0]

    def document_names(self) -> list[str]:
        """Names by document number, of all documents up to the end of the last window read."""
        return list(self._reading.names)

    def fingerprint(self, window: int | None = None) -> str:
        """Hexadecimal sha256 over names and texts of all documents up to the end of a window.

        Args:
            window: Number of a window that was read or passed over; null for the last one.
        """
        reading = self._reading
        return reading.fingerprint.hexdigest() if window is None else reading.fingerprints[window]

    def describe(self) -> dict[str, Any]:
        """What decides the contexts and their order, as plain JSON values.

        `batch_size` and `window_batches` are among it: they decide what is padded and multiplied together, and with it
        the last bits of the activations; and a window is the unit in which an extraction goes on.

        Raises:
            UserError: the tokenizer cannot be found.
        """
        return {
            "corpus": self.corpus.describe(),
            "tokenizer": self.tokenizer,
            "tokenizer_sha256": tokenizer_sha256(self.tokenizer, self.revision),
            "revision": self.revision,
            "context_length": self.context_length,
            "max_tokens": self.max_tokens,
            "batch_size": self.batch_size,
            "window_batches": self.window_batches,
            "packed": self.packed,
            "bos": self.bos,
            "separator": self.separator,
            "overlap": self.overlap,
            "long_documents": self.long_documents,
            "min_tokens": self.min_tokens,
        }

    def _grouped_contexts(self, reading: _Reading) -> Iterator[list[Columns]]:
        """Yields the contexts of one window after the other."""
        self._refuse_impossible_settings()
        tokenizer = load_tokenizer(self.tokenizer, self.revision)
        rules = self._rules(tokenizer)
        documents = reading.record(self.corpus.documents())
        for contexts in grouped(cut(tokenise(documents, tokenizer), rules, reading.counts), self.contexts_a_window):
            reading.reach(int(contexts[-1][1].max()))
            reading.fingerprints.append(reading.fingerprint.hexdigest())
            yield contexts
        if not reading.names:
            raise UserError(self._why_empty(reading))

    def _rules(self, tokenizer: PreTrainedTokenizerBase) -> ContextRules:
        begin, end = joining_tokens(tokenizer) if self.packed else template_tokens(tokenizer)
        rules = ContextRules(
            self.context_length,
            prefix=begin if self.bos else (),
            suffix=end if self.separator else (),
            packed=self.packed,
            overlap=self.overlap,
            truncate=self.long_documents == "truncate",
            min_tokens=self.min_tokens or 1,
            max_tokens=self.max_tokens,
        )
        if rules.room <= self.overlap:
            special = f"{self.context_length - rules.room} special tokens"
            raise UserError(
                f"context_length {self.context_length} leaves no room for new text beside {special} and an overlap of "
                f"{self.overlap}: raise it or lower overlap"
            )
        return rules

    def _why_empty(self, reading: _Reading) -> str:
        short = reading.counts.short_documents
        if short:
            return f"all {short} documents with text are shorter than min_tokens {self.min_tokens}: lower it"
        if self.packed:
            return (
                f"the corpus ({reading.documents} documents) has not enough text for one context of "
                f"{self.context_length} tokens: give it more text or lower context_length"
            )
        return f"the corpus ({reading.documents} documents) has no text: choose another one"

    def _refuse_impossible_settings(self) -> None:
        if self.context_length < 2:
            raise UserError("context_length 1 leaves no room for text after the special token: set it to 2 or more")
        if self.max_tokens is not None and self.max_tokens < self.context_length:
            raise UserError(
                f"max_tokens {self.max_tokens} is less than one context of {self.context_length} tokens: raise it"
            )
        if self.long_documents == "truncate" and (self.packed or self.overlap):
            raise UserError(
                "long_documents truncate is for unpacked documents without overlap: set packed to false, overlap to 0"
            )
