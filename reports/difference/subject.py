"""What a report of a difference is about, and where the texts that it shows are from."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from backbones import load_tokenizer
from datamodules.shards import ActivationStore
from datamodules.token_pieces import TokenPieces
from explanations import ModelDifference, nearby_labels


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
        """[s] in words, of tokens or else of passages; empty where there is none."""
        found = self.difference
        of_passages = nearby_labels(found.features.sample, len(found.labels), self.pieces.of)
        of_tokens = (label.words(self.pieces.of) for label in found.labels)
        return [label or passage for label, passage in zip(of_tokens, of_passages, strict=True)]
