"""What a report of a difference is about, and where the texts that it shows are from."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from backbones import load_tokenizer
from datamodules.shards import ActivationStore
from datamodules.token_pieces import TokenPieces
from explanations import ModelDifference


@dataclass(frozen=True)
class Subject:
    """Attributes:
    name: of the run.
    difference: what was found.
    store: where the rows of the contexts are.
    """

    name: str
    difference: ModelDifference
    store: ActivationStore

    @cached_property
    def pieces(self) -> TokenPieces:
        """The text of tokens.

        Raises:
            UserError: the tokenizer cannot be loaded.
        """
        text = self.store.manifest.source["text"]
        return TokenPieces(load_tokenizer(text["tokenizer"], text.get("revision")))

    @cached_property
    def labels(self) -> list[str]:
        """[s] in words; empty where there is none."""
        return [label.words(self.pieces.of) for label in self.difference.labels]
