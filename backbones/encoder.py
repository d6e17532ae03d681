"""What every text encoder is asked for, and how it goes over a batch.

Shapes: u texts of a batch, c texts of a chunk, d width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from backbones.chunks import Chunk, cut, in_batch_order
from backbones.one_batch import one_batch
from datamodules.triplets.batch import Tokenisation, TokenisedTexts


class Encoder(nn.Module, ABC):
    """Base of the text encoders. Making one costs nothing: weights are there from `build` on."""

    @abstractmethod
    def check_settings(self) -> None:
        """Refuses settings that make no sense together or for the model, without loading its weights.

        Raises:
            UserError: naming the setting.
        """

    @abstractmethod
    def build(self) -> None:
        """Loads the weights; what is to be trained requires gradients. Only the first call does anything.

        Raises:
            UserError: a model cannot be loaded, or a setting does not suit it.
        """

    @abstractmethod
    def tokenisations(self) -> list[Tokenisation]:
        """How the texts are to be tokenised, once for each model in it. Needs no weights."""

    @property
    @abstractmethod
    def width(self) -> int:
        """d. Needs no weights."""

    @property
    def normalizes(self) -> bool:
        """Whether embeddings have norm 1. Needs no weights."""
        return True

    @property
    @abstractmethod
    def budgets(self) -> list[int]:
        """Padded tokens of a chunk, for each tokenisation."""

    @abstractmethod
    def encode_chunk(self, chunk: Chunk) -> Tensor:
        """Embeddings [c, d] of a chunk's texts, float32, with a gradient where that is enabled."""

    @abstractmethod
    def lineage(self) -> dict[str, Any]:
        """What the encoder is made from, hashes of the weights among it; plain values. Needs no weights.

        Raises:
            UserError: a model cannot be found.
        """

    def chunks(self, texts: Sequence[TokenisedTexts]) -> list[Chunk]:
        """The texts in chunks to be encoded one by one: each place of the batch is in one of them."""
        return cut(texts, self.budgets)

    def encode(self, texts: Sequence[TokenisedTexts]) -> Tensor:
        """Embeddings [u, d] in the order of the texts, with a gradient where that is enabled.

        Args:
            texts: the same u texts for each of `tokenisations()`.
        """
        chunks = self.chunks(texts)
        if not chunks:
            return torch.empty(0, self.width, device=texts[0].tokens.device)
        return in_batch_order(self.encode_chunks(chunks), chunks)

    def encode_chunks(self, chunks: Sequence[Chunk]) -> list[Tensor]:
        """Embeddings [c, d] of each chunk of a batch. What chunks share is made once."""
        with one_batch():
            return [self.encode_chunk(chunk) for chunk in chunks]
