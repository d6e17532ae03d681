"""Several encoders side by side. Shapes: c texts of a chunk, d width of all of them together."""

from __future__ import annotations

from typing import Any

import torch
from jsonargparse.typing import PositiveFloat
from torch import Tensor, nn
from torch.nn.functional import normalize

from backbones.chunks import Chunk
from backbones.encoder import Encoder
from backbones.text_encoder import TextEncoder
from datamodules.triplets.batch import Tokenisation
from run_store import UserError


class ConcatenatedEncoder(Encoder):
    """The embeddings of several models, each brought to norm 1, weighted and concatenated, of norm 1 again.

    Part i is multiplied by √(w_i / Σw), so that cosines are the weighted mean of the parts' cosines:
    cos(x, y) = Σ w_i cos_i(x, y) / Σ w_i.

    Args:
        encoders: The parts, in the order in which they stand in the embedding.
        weights: One w for each part; null weighs all alike.
    """

    def __init__(self, encoders: list[TextEncoder], weights: list[PositiveFloat] | None = None) -> None:
        super().__init__()
        self.encoders = nn.ModuleList(encoders)
        self.weights = weights

    @property
    def parts(self) -> list[TextEncoder]:
        return [part for part in self.encoders if isinstance(part, TextEncoder)]

    def check_settings(self) -> None:
        if not self.parts:
            raise UserError("encoders is empty: name one at least")
        if self.weights is not None and len(self.weights) != len(self.parts):
            raise UserError(
                f"weights has {len(self.weights)} numbers for {len(self.parts)} encoders: give one for each"
            )
        for part in self.parts:
            part.check_settings()

    def build(self) -> None:
        self.check_settings()
        for part in self.parts:
            part.build()

    @property
    def width(self) -> int:
        return sum(part.width for part in self.parts)

    @property
    def budgets(self) -> list[int]:
        return [budget for part in self.parts for budget in part.budgets]

    def tokenisations(self) -> list[Tokenisation]:
        return [tokenisation for part in self.parts for tokenisation in part.tokenisations()]

    def encode_chunk(self, chunk: Chunk) -> Tensor:
        weights = self.weights or [1.0] * len(self.parts)
        vectors = [
            normalize(part.encode_padded(texts), dim=1) * (weight / sum(weights)) ** 0.5
            for part, texts, weight in zip(self.parts, chunk.texts, weights, strict=True)
        ]
        return torch.cat(vectors, dim=1)

    def lineage(self) -> dict[str, Any]:
        return {"encoders": [part.lineage() for part in self.parts], "weights": self.weights}
