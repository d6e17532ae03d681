"""What single tokens look like in a text, for pages that show very many of them."""

from __future__ import annotations

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from datamodules.text_samples import pieces_of_text

_BROKEN = "\N{REPLACEMENT CHARACTER}"


class TokenPieces:
    """The text that each token adds to what stands before it, with the space that it begins with, if any.

    A token is decoded once, behind another; only where it is a part of a character are those around it asked.

    Args:
        tokenizer: that of the tokens.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self._known: dict[int, str] = {}
        ids = tokenizer("a", add_special_tokens=False)["input_ids"]
        self._before = ids[:1]

    def of(self, token: int) -> str:
        """Of one token id."""
        if token not in self._known:
            self._known[token] = pieces_of_text(self._tokenizer, [*self._before, token])[-1]
        return self._known[token]

    def of_all(self, tokens: Sequence[int]) -> list[str]:
        """Of token ids that follow each other. A character that is split over several belongs to the last of them."""
        pieces = [self.of(token) for token in tokens]
        if any(_BROKEN in piece for piece in pieces):
            return list(pieces_of_text(self._tokenizer, list(tokens)))
        return pieces
