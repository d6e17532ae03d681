"""Scores of embeddings as compressed indices keep them: a byte or a bit a dimension.

Shapes: q queries, m documents, n embeddings, d width.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jsonargparse.typing import PositiveInt
from torch import Tensor

from lightning_modules.functional.score_spaces import (
    BlockScores,
    ScoreSpace,
    product_scores,
    rounding_of_products,
)

LEVELS = 256


class Int8Scale(NamedTuple):
    """How numbers become bytes, each dimension by itself: code = round((x - low) / step) - 128, cut to -128 … 127."""

    low: Tensor
    """[d]."""
    step: Tensor
    """[d]; 0 where all numbers were the same."""

    @classmethod
    def of(cls, embeddings: Tensor) -> Int8Scale:
        """The one that spends its 256 levels between the least and the greatest number of each dimension of [n, d]."""
        low, high = torch.aminmax(embeddings, dim=0)
        return cls(low, (high - low) / (LEVELS - 1))

    def codes(self, embeddings: Tensor) -> Tensor:
        """[n, d] → [n, d] int8."""
        levels = (embeddings - self.low) / torch.where(self.step > 0, self.step, 1)
        return (levels.round().clamp(0, LEVELS - 1) - LEVELS // 2).to(torch.int8)

    def values(self, codes: Tensor) -> Tensor:
        """[n, d] int8 → [n, d], what the codes stand for."""
        return (codes.to(self.low.dtype) + LEVELS // 2) * self.step + self.low


class Int8(ScoreSpace):
    """Inner products of what int8 codes stand for, queries and documents alike.

    The scale of each dimension runs from the least to the greatest number that the documents have in it, as the int8
    quantisation of sentence-transformers does it, with two differences: codes are rounded, not cut, and a query's
    number beyond the scale stays at its end, where a cast would wrap around to the other.
    """

    def _scores(self, queries: Tensor, documents: Tensor) -> BlockScores:
        if not len(documents):
            return product_scores(queries, documents)
        scale = Int8Scale.of(documents)
        return product_scores(scale.values(scale.codes(queries)), scale.values(scale.codes(documents)))


class Binary(ScoreSpace):
    """The Hamming distance of the signs, as 1 - 2 · distance / d; 0 counts as negative.

    With a bit a dimension very many documents have equal scores. The distance comes from a product of vectors
    of ±1, which is exact and faster than counting bits.

    Args:
        dimensions: how many of the first dimensions are kept; all by default.
        shortlist: how many documents, with all that have the distance of the last of them, are ranked again by the
            inner product of the query as it is and the document's signs, before all others; none by default.
    """

    def __init__(self, dimensions: PositiveInt | None = None, shortlist: PositiveInt | None = None) -> None:
        super().__init__(dimensions)
        self.shortlist = shortlist

    def _scores(self, queries: Tensor, documents: Tensor) -> BlockScores:
        signs, query_signs, width = signs_of(documents), signs_of(queries), documents.shape[1]

        def agreement(start: int, stop: int) -> Tensor:
            return (query_signs[start:stop] @ signs.T).div_(width)

        if self.shortlist is None or not len(documents):
            return BlockScores(agreement, len(queries), len(documents), tie=0.5 / width)

        listed = min(self.shortlist, len(documents))

        def of(start: int, stop: int) -> Tensor:
            agreed = agreement(start, stop)
            last = agreed.topk(listed, dim=1, sorted=False).values.amin(dim=1, keepdim=True)
            products = (queries[start:stop] @ signs.T).div_(width**0.5)
            # both lie in -1 … 1: an agreement less 3 stands behind every product
            return torch.where(agreed >= last, products, agreed - 3)

        return BlockScores(of, len(queries), len(documents), tie=rounding_of_products(signs.dtype))


def signs_of(embeddings: Tensor) -> Tensor:
    """1 where a number is above 0 and -1 elsewhere."""
    return torch.where(embeddings > 0, 1.0, -1.0).to(embeddings.dtype)
