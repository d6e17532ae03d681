"""Short texts with the activations of their tokens: from a store, or read by the model that the store was made with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from backbones import Extractor, GreedyContinuation, RowExtractor, has_language_head
from datamodules.shards import RowStore, TextRows
from datamodules.text import Document, tokenise
from datamodules.text_contexts import TextContexts
from run_store import UserError

Replace = Callable[[tuple[Tensor, ...]], Mapping[str, Tensor]]

MOST_TOKENS_A_CHARACTER = 4
"""One a byte."""


class TextSamples:
    """Reads texts as an autoencoder is to see them.

    Args:
        store: Where held-out rows are.
        ranges: int64 [documents, 2] first row of each held-out document and the row after its last.
        hook_points: Those that an autoencoder sees, in its order.
        tokenizer: That of the store.
        extractor: What the store was made with, where that is known.
        text: How its text was cut, where that is known.
    """

    def __init__(
        self,
        store: RowStore,
        ranges: Tensor,
        hook_points: Sequence[str],
        tokenizer: PreTrainedTokenizerBase,
        extractor: RowExtractor | None = None,
        text: TextContexts | None = None,
    ) -> None:
        self._store = store
        self._ranges = ranges
        self._hook_points = list(hook_points)
        self._tokenizer = tokenizer
        self._extractor = extractor
        self._text = text

    def pieces(self, length: int) -> int:
        """How many pieces of `length` rows the held-out documents can be cut into, a document's ragged end left out."""
        return int(self._pieces_of_each(length).sum())

    def stored(self, piece: int, length: int) -> TextRows:
        """What the store has of a piece, as the model read it: behind the text that stands before it."""
        ends = self._pieces_of_each(length).cumsum(0)
        document = int(torch.searchsorted(ends, piece, right=True))
        behind = int(ends[document]) - piece  # pieces up to the document's last
        whole = int(self._pieces_of_each(length)[document])
        start = int(self._ranges[document, 0]) + (whole - behind) * length
        rows = torch.arange(start, start + length)
        ids = self._store.provenance(rows).tokens.long()
        return self._rows(None, ids, self._store.read(rows, self._hook_points))

    def _pieces_of_each(self, length: int) -> Tensor:
        """int64 [documents]."""
        return (self._ranges[:, 1] - self._ranges[:, 0]) // length

    def read(self, texts: Sequence[str], length: int) -> list[TextRows]:
        """What the model makes of texts, each a context by itself and cut at `length` tokens. It is loaded for that and
        given back.

        Raises:
            UserError: it is not known which model that is, or it cannot be loaded or read them.
        """
        if self._extractor is None or self._text is None:
            raise UserError(
                "texts of a file are read with the model that the store was made with: set data.extractor and data.text"
            )
        encoded = tokenise([Document(str(place), text) for place, text in enumerate(texts)], self._tokenizer)
        # with a model of its own: the other may be reading in another thread
        extractor = self._extractor.copied()
        found = []
        try:
            for text, document in zip(texts, encoded, strict=True):
                if not len(document.ids):
                    found.append(self._without_tokens(text))
                    continue
                captured = extractor(self._text.context(document.ids[:length], self._tokenizer))
                activations = tuple(captured.activations[name].float() for name in self._hook_points)
                found.append(self._rows(text, captured.tokens, activations))
        finally:
            extractor.unload()
        return found

    def _rows(self, text: str | None, ids: Tensor, activations: tuple[Tensor, ...]) -> TextRows:
        tokens = pieces_of_text(self._tokenizer, ids.tolist())
        return TextRows("".join(tokens) if text is None else text, tokens, ids, activations)

    def _without_tokens(self, text: str) -> TextRows:
        widths = [self._store.hook_points[name] for name in self._hook_points]
        return TextRows(text, (), torch.empty(0, dtype=torch.int64), tuple(torch.empty(0, d) for d in widths))

    # ---- going on with a text

    @cached_property
    def goes_on(self) -> bool:
        """Whether the model is known and predicts the next token."""
        extractor = self._extractor
        if not isinstance(extractor, Extractor) or self._text is None:
            return False
        return has_language_head(extractor.model, extractor.revision, extractor.remote_code_of)

    @cached_property
    def _continuation(self) -> GreedyContinuation:
        assert isinstance(self._extractor, Extractor)
        return GreedyContinuation(self._extractor)

    def continued(self, texts: Sequence[TextRows], count: int, replace: Replace | None = None) -> list[str]:
        """How the model goes on with each text, by its likeliest tokens up to the one that ends a text.

        Args:
            texts: Of `stored` or `read`.
            count: Tokens that follow.
            replace: From the activations of some tokens at the hook points, [k, d] each, to what passes at some of them
                instead; None leaves the model as it is.

        Raises:
            UserError: the model cannot be loaded or go on.
        """
        assert self._text is not None
        found = [""] * len(texts)
        # contexts of one length need no padding
        for length in sorted({len(text.ids) for text in texts} - {0}):
            places = [place for place, text in enumerate(texts) if len(text.ids) == length]
            contexts = [
                self._text.context(texts[place].ids.numpy(), self._tokenizer, open_end=True) for place in places
            ]
            batch = type(contexts[0])(*(torch.cat(column) for column in zip(*contexts, strict=True)))
            instead = None if replace is None else lambda states: replace(tuple(states[n] for n in self._hook_points))
            following = self._continuation(batch, count, instead)
            for place, ids in zip(places, following.tolist(), strict=True):
                found[place] = self._until_the_end(ids)
        return found

    def _until_the_end(self, ids: list[int]) -> str:
        end = self._tokenizer.eos_token_id
        return str(self._tokenizer.decode(ids[: ids.index(end)] if end in ids else ids))


def pieces_of_text(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> tuple[str, ...]:
    """What each token adds to the text of those before it, which decide whether it begins with a space, say.

    A character that is split over several tokens belongs to the last of them.
    """

    def decoded(start: int, stop: int) -> str:
        return str(tokenizer.decode(list(ids[start:stop]), skip_special_tokens=False))

    pieces = list[str]()
    # of the text up to `told` pieces are known; what lies before `begin` no longer changes what is behind `told`
    begin, told = 0, 0
    for stop in range(1, len(ids) + 1):
        before, text = decoded(begin, told) if told else "", decoded(begin, stop)
        if text.endswith("\N{REPLACEMENT CHARACTER}") and stop < len(ids) and stop - told < MOST_TOKENS_A_CHARACTER:
            pieces.append("")
            continue
        # a tokenizer may mend what it has said before
        pieces.append(text[len(before) :] if text.startswith(before) else decoded(told, stop))
        begin, told = told, stop
    return tuple(pieces)
