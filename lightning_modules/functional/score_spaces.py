"""What makes scores of embeddings: as they are, of a prefix of their width, or of what a compressed index keeps.

Shapes: q queries, m documents, d width.

Scores are made for a few queries at a time, so that [q, m] never exists.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import NamedTuple

import torch
from jsonargparse.typing import PositiveInt
from torch import Tensor

from lightning_modules.functional.similarities import unit, widened
from run_store import UserError


class BlockScores(NamedTuple):
    """Scores of m documents for q queries; the greater, the more alike."""

    of: Callable[[int, int], Tensor]
    """(start, stop) → [stop - start, m] scores for the queries start … stop - 1, which the caller may change."""
    queries: int
    documents: int
    tie: float
    """Scores that are no further apart than this are equal."""


class ScoreSpace(ABC):
    """Base of the score spaces.

    Args:
        dimensions: how many of the first dimensions are kept, for models trained to be truncated (Matryoshka); all by
            default. The rest is scaled to unit length again.
    """

    def __init__(self, dimensions: PositiveInt | None = None) -> None:
        self.dimensions = dimensions

    def scores(self, queries: Tensor, documents: Tensor) -> BlockScores:
        """Scores of documents [m, d] for queries [q, d], both of any norm.

        Raises:
            UserError: an embedding is not finite, or has fewer dimensions than are to be kept.
        """
        refuse_non_finite(queries, "queries")
        refuse_non_finite(documents, "documents")
        return self._scores(self._kept(queries), self._kept(documents))

    def _kept(self, embeddings: Tensor) -> Tensor:
        width = embeddings.shape[1]
        if self.dimensions is not None and self.dimensions > width:
            raise UserError(
                f"dimensions of {type(self).__name__} is {self.dimensions}, and the embeddings have {width}: lower it"
            )
        return unit_rows(embeddings[:, : self.dimensions])

    @abstractmethod
    def _scores(self, queries: Tensor, documents: Tensor) -> BlockScores:
        """Scores of unit vectors, float32 or float64."""


class Cosine(ScoreSpace):
    """The cosine."""

    def _scores(self, queries: Tensor, documents: Tensor) -> BlockScores:
        return product_scores(queries, documents)


def product_scores(queries: Tensor, documents: Tensor) -> BlockScores:
    """Inner products of vectors of about unit length."""

    def of(start: int, stop: int) -> Tensor:
        return queries[start:stop] @ documents.T

    return BlockScores(of, len(queries), len(documents), tie=rounding_of_products(queries.dtype))


def rounding_of_products(dtype: torch.dtype) -> float:
    """By how much inner products of the same unit vectors may differ.

    A matrix product may add up its last few columns in another order than the rest. Equal documents then differ in the
    last bits of their scores, and without this allowance a collapsed model could look perfect.
    """
    return 4 * torch.finfo(dtype).eps


def unit_rows(embeddings: Tensor) -> Tensor:
    """Rows [n, d] at unit length, in float32 or float64; a row of zeros stays one."""
    return unit(widened(embeddings))


def refuse_non_finite(embeddings: Tensor, what: str) -> None:
    """Lets embeddings [n, d] pass that are finite.

    Raises:
        UserError: one is not; such scores would rank first or be lost.
    """
    finite = embeddings.isfinite().all(dim=1)
    if not bool(finite.all()):
        raise UserError(
            f"{int((~finite).sum())} of {len(embeddings)} embeddings of {what} are not finite: lower the learning "
            "rate, or compute in bfloat16 or float32 where the model overflows float16"
        )
