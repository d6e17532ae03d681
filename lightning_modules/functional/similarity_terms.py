"""The cosine of two embeddings as a sum of terms: latents that both have, pairs of different latents, and a residual.

Shapes: q queries, n documents, m latents, p pairs, d width. Everything is computed in the dtype of what comes in:
float64, where terms are to sum to the cosine.

An embedding is x = g W + b + e: pooled codes g of the latents, whose directions are the rows of W; the pooled bias b;
and e, what the autoencoder misses. So, exactly,

    x·y = Σ_i g_i h_i ‖W_i‖²  +  Σ_{i≠j} g_i h_j W_i·W_j  +  (terms with a bias)  +  (terms with an error)
          diagonal               cross                       the residual's two parts

and a cosine is that over ‖x‖ ‖y‖. A product of a bias and an error counts as a term with an error.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class SplitVectors(NamedTuple):
    """n embeddings x = g W + b + e over m latents, which are all that any of them has."""

    codes: Tensor
    """[n, m] g."""
    bias: Tensor
    """[n, d] b."""
    error: Tensor
    """[n, d] e."""

    def whole(self, W: Tensor) -> Tensor:
        """x [n, d]; W is [m, d]."""
        return self.codes @ W + self.bias + self.error


class SimilarityTerms(NamedTuple):
    """Terms of the cosines of q queries with n documents, [q, n] each; they sum to `cosine`. A vector of zeros has
    cosine 0 with every other.
    """

    cosine: Tensor
    diagonal: Tensor
    """Of latents that both have."""
    cross: Tensor
    """Of pairs of different latents."""
    bias: Tensor
    """In which a bias has part, but no error."""
    error: Tensor
    """In which an error has part."""

    @property
    def residual(self) -> Tensor:
        """All that is not between latents."""
        return self.bias + self.error


class LatentTerms(NamedTuple):
    """What each latent has of the cosine of one query with n documents, [n, m] each."""

    diagonal: Tensor
    """Its own term."""
    cross: Tensor
    """Half of every pair that it is in: so both columns sum over latents to the terms between latents, and the sum of
    the two is the latent's Shapley value among them."""

    @property
    def whole(self) -> Tensor:
        """[n, m]."""
        return self.diagonal + self.cross


class CrossPairs(NamedTuple):
    """The p strongest pairs of different latents, those of largest magnitude first."""

    first: Tensor
    """[p] int64 the query's latent."""
    second: Tensor
    """[p] int64 the document's."""
    terms: Tensor
    """[p] of the cosine."""


def similarity_terms(queries: SplitVectors, documents: SplitVectors, W: Tensor) -> SimilarityTerms:
    """The terms of every cosine of a query with a document.

    Args:
        queries: q of them.
        documents: n of them, over the same latents.
        W: [m, d] directions of these latents.
    """
    squares = torch.linalg.vecdot(W, W)
    of_latents = queries.codes @ W, documents.codes @ W
    reconstructed = of_latents[0] + queries.bias, of_latents[1] + documents.bias
    whole = reconstructed[0] + queries.error, reconstructed[1] + documents.error
    unit = _inverse_norms(whole[0]).unsqueeze(1) * _inverse_norms(whole[1])
    diagonal = (queries.codes * squares) @ documents.codes.T * unit
    between, with_bias, every = (left @ right.T * unit for left, right in (of_latents, reconstructed, whole))
    return SimilarityTerms(every, diagonal, between - diagonal, with_bias - between, every - with_bias)


def latent_terms(query: SplitVectors, documents: SplitVectors, W: Tensor) -> LatentTerms:
    """What each latent has of the cosines of one query with n documents.

    Args:
        query: a single one.
        documents: n of them, over the same latents.
        W: [m, d].
    """
    unit = (_inverse_norms(query.whole(W)) * _inverse_norms(documents.whole(W))).unsqueeze(1)
    diagonal = query.codes * documents.codes * torch.linalg.vecdot(W, W) * unit
    towards_documents = query.codes * (documents.codes @ W @ W.T)
    towards_query = documents.codes * (query.codes @ W @ W.T)
    return LatentTerms(diagonal, (towards_documents + towards_query) * unit / 2 - diagonal)


def strongest_pairs(query: SplitVectors, document: SplitVectors, W: Tensor, count: int) -> CrossPairs:
    """The strongest cross terms of one query with one document.

    Args:
        query: a single one.
        document: a single one, over the same latents.
        W: [m, d].
        count: p, or as many as there are.
    """
    unit = _inverse_norms(query.whole(W)) * _inverse_norms(document.whole(W))
    mine, other = (vectors.codes[0].nonzero().squeeze(1) for vectors in (query, document))
    terms = (query.codes[0, mine, None] * W[mine]) @ (document.codes[0, other, None] * W[other]).T * unit
    terms = terms.where(mine.unsqueeze(1) != other, 0.0)
    flat = terms.flatten()
    best = flat.abs().topk(min(count, int((flat != 0).sum()))).indices
    return CrossPairs(mine[best // max(1, len(other))], other[best % max(1, len(other))], flat[best])


def _inverse_norms(vectors: Tensor) -> Tensor:
    """1 / ‖x‖ [n] of x [n, d]; 0 for zeros."""
    norms: Tensor = torch.linalg.vector_norm(vectors, dim=1)
    return norms.reciprocal().where(norms > 0, 0.0)
