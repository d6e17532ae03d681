"""Texts into tokens as an encoder wants them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from transformers import PreTrainedTokenizerBase

from datamodules.triplets.batch import Tokenisation
from run_store import UserError

Column = Literal["anchor", "positive", "negative"]


class TokenisedText(NamedTuple):
    """A text as one encoder reads it."""

    ids: npt.NDArray[np.int32]
    is_truncated: bool


@dataclass(frozen=True)
class Tokeniser:
    """A tokenizer and how it is used.

    Attributes:
        how: What the encoder asks for.
        sha256: Of the tokenizer's files.
        load: Loads the tokenizer, a fast one; called when there is something to tokenise and not before.
    """

    how: Tokenisation
    sha256: str
    load: Callable[[], PreTrainedTokenizerBase]

    def prompt(self, column: Column) -> str:
        """What is put in front of a column's texts. Negatives are documents like positives and have their prompt.

        Raises:
            UserError: negatives have a prompt of their own, so that a positive could be found again as a negative
                without being known for the same text.
        """
        prompts = self.how.prompts
        positive = prompts.get("positive", "")
        if prompts.get("negative", positive) != positive:
            raise UserError(
                f"prompts: negative {prompts['negative']!r} differs from positive {positive!r}, and the same text "
                "would count as two: leave out negative, or make both the same"
            )
        return prompts.get("anchor", "") if column == "anchor" else positive

    def describe(self) -> dict[str, Any]:
        """All that decides which tokens a text becomes, as plain JSON values."""
        prompts = {"anchor": self.prompt("anchor"), "positive": self.prompt("positive")}
        return {"sha256": self.sha256, "max_length": self.how.max_length, "prompts": prompts}

    def __call__(self, texts: Sequence[str]) -> list[TokenisedText]:
        """The tokens of many texts, each with its prompt already, special tokens among them, cut at `max_length`."""
        encodings = self._backend.encode_batch_fast(list(texts), add_special_tokens=True)
        return [TokenisedText(np.array(e.ids, dtype=np.int32), bool(e.overflowing)) for e in encodings]

    @cached_property
    def _backend(self) -> Any:
        tokenizer = self.load()
        backend = tokenizer.backend_tokenizer
        backend.no_padding()
        backend.enable_truncation(self.how.max_length, direction=tokenizer.truncation_side)
        # As when the finished encoder is used: prompts may hold special tokens.
        backend.encode_special_tokens = False
        return backend
