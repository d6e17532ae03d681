"""Small streams of codes with documents and tokens, cut into batches as a pass over a store cuts them."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from features import BatchRows, FeatureCollector, Features, Keeping
from lightning_modules.functional import BatchCodes, Codes, DenseCodes, SparseCodes


@dataclass(frozen=True)
class Stream:
    """Values [rows, s] of all latents, and each row's document and token."""

    dense: Tensor
    documents: Tensor
    tokens: Tensor

    @classmethod
    def drawn(cls, rows: int, d_sae: int, seed: int, levels: int = 5, signed: bool = False) -> "Stream":
        """Few levels, so that there are ties; latent 0 is dead and latent 1, if there is one, fires everywhere."""
        generator = torch.Generator().manual_seed(seed)
        values = torch.randint(1, levels + 1, (rows, d_sae), generator=generator).float() / 3
        values *= torch.rand(rows, d_sae, generator=generator) < 0.3
        if signed:
            values *= torch.randint(0, 2, (rows, d_sae), generator=generator) * 2 - 1
        values[:, :1] = 0
        values[:, 1:2] = 1.5
        documents = (torch.rand(rows, generator=generator) < 0.2).cumsum(0)
        return cls(values, documents, torch.randint(0, 4, (rows,), generator=generator))

    def batches(self, size: int, neighbours: int, kind: str = "sparse") -> Iterator[tuple[Codes, BatchRows]]:
        """With the neighbours of the rows that count."""
        rows = len(self.documents)
        for start in range(0, rows, size):
            part = torch.arange(max(0, start - neighbours), min(rows, start + size + neighbours))
            counted = (part >= start) & (part < start + size)
            yield coded(self.dense[part], kind), BatchRows(part, self.documents[part], self.tokens[part], counted)

    def features(self, size: int, keeping: Keeping, kind: str = "sparse", watched: Tensor | None = None) -> Features:
        collector = FeatureCollector(self.dense.shape[1], keeping, watched)
        for codes, rows in self.batches(size, keeping.neighbours, kind):
            collector.update(codes, rows)
        return collector.features()


def coded(dense: Tensor, kind: str) -> Codes:
    if kind == "dense":
        return DenseCodes(dense)
    if kind == "batch":
        return BatchCodes.of(dense)
    # by magnitude, so that the latents of a row come in no order of their numbers
    indices = dense.abs().sort(dim=1, descending=True).indices
    return SparseCodes(dense.gather(1, indices), indices, dense.shape[1])
