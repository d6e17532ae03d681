"""Retrieval by the latents that texts share: an inverted index of pooled codes.

Shapes: n texts, q queries, E entries, s latents.

The score of a document for a query is Σ_i v_i(q) v_i(d) over latents that both have, v_i = ḡ_i √w_i with pooled codes ḡ
and a weight w_i of each latent. With w_i = ‖W_i‖² that is the diagonal part of the product of both embeddings.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lightning_modules.functional import BlockScores, Fired, LatentSets

Weighting = Literal["norm", "idf"]
TIE = 1e-6
"""Scores of unit vectors that differ by less are equal: sums are made in another order for every document."""


class SparseVectors(NamedTuple):
    """n sparse vectors of norm 1 over s latents, in CSR; one without entries is 0."""

    starts: npt.NDArray[np.int64]
    """[n + 1]."""
    latents: npt.NDArray[np.int32]
    """[E], ascending within a text."""
    values: npt.NDArray[np.float32]
    """[E]."""
    d_sae: int

    def __len__(self) -> int:
        return len(self.starts) - 1

    def row(self, text: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
        """Latents and values of one text."""
        part = slice(self.starts[text], self.starts[text + 1])
        return self.latents[part], self.values[part]


def latent_weights(W_dec: Tensor, documents: Fired, count: int, weighting: Weighting = "norm") -> Tensor:
    """[s] w_i: ‖W_i‖², or that times log(n / n_i)², n_i being the number of documents that have the latent.

    Args:
        W_dec: [s, d].
        documents: pooled codes of n documents.
        count: n.
        weighting: `norm`, or `idf` to give little to latents that most documents have.
    """
    weights = W_dec.double().square().sum(dim=1)
    if weighting == "norm":
        return weights
    having = torch.bincount(documents.latents, minlength=len(W_dec)).clamp_min(1)
    return weights * (count / having.double()).log().clamp_min(0).square()


def sparse_vectors(codes: Fired, count: int, weights: Tensor, kept: int | None = None) -> SparseVectors:
    """Texts as an index takes them.

    Args:
        codes: pooled codes of n texts, by text and within a text by latent.
        count: n.
        weights: [s] w_i ≥ 0.
        kept: of each text the so many latents with the largest |v_i|; None keeps all.
    """
    values = codes.values.double() * weights.sqrt()[codes.latents]
    chosen = values != 0
    if kept is not None:
        strongest_first = values.abs().argsort(descending=True, stable=True)
        order = strongest_first[codes.rows[strongest_first].argsort(stable=True)]
        counts = torch.bincount(codes.rows, minlength=count)
        within = torch.arange(len(order), device=order.device) - (counts.cumsum(0) - counts)[codes.rows[order]]
        chosen[order[within >= kept]] = False
    rows, latents, values = codes.rows[chosen], codes.latents[chosen], values[chosen]
    norms = torch.zeros(count, dtype=torch.float64, device=values.device).index_add_(0, rows, values.square()).sqrt()
    starts = np.zeros(count + 1, dtype=np.int64)
    np.cumsum(torch.bincount(rows, minlength=count).cpu().numpy(), out=starts[1:])
    unit = (values / norms[rows]).float().cpu().numpy()
    return SparseVectors(starts, latents.to("cpu", torch.int32).numpy(), unit, len(weights))


@dataclass(frozen=True)
class SparseIndex:
    """For every latent the documents that have it. A search touches the lists of the query's latents alone.

    Attributes:
        starts: [s + 1] where the list of each latent begins.
        documents: [E] int32, ascending within a list.
        values: [E] float16: rounding moves a score by less than 1e-3.
        count: n.
    """

    starts: npt.NDArray[np.int64]
    documents: npt.NDArray[np.int32]
    values: npt.NDArray[np.float16]
    count: int

    @classmethod
    def of(cls, documents: SparseVectors) -> SparseIndex:
        """Of the documents' vectors."""
        rows = np.repeat(np.arange(len(documents), dtype=np.int32), np.diff(documents.starts))
        order = np.argsort(documents.latents, kind="stable")
        starts = np.zeros(documents.d_sae + 1, dtype=np.int64)
        np.cumsum(np.bincount(documents.latents, minlength=documents.d_sae), out=starts[1:])
        return cls(starts, rows[order], documents.values[order].astype(np.float16), len(documents))

    @property
    def nbytes(self) -> int:
        """Of all that a search needs."""
        return self.starts.nbytes + self.documents.nbytes + self.values.nbytes

    def scores(self, latents: npt.NDArray[np.int32], values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """[n] scores of all documents for a query, given its latents and their values."""
        scores = np.zeros(self.count, dtype=np.float32)
        for latent, value in zip(latents.tolist(), values, strict=True):
            part = slice(self.starts[latent], self.starts[latent + 1])
            # no document is twice in a list; NumPy 1 would multiply in float16
            scores[self.documents[part]] += value * self.values[part].astype(np.float32)
        return scores

    def search(
        self, latents: npt.NDArray[np.int32], values: npt.NDArray[np.float32], count: int
    ) -> npt.NDArray[np.int64]:
        """The documents with the highest scores for a query, at most `count`, best first."""
        scores = self.scores(latents, values)
        count = min(count, self.count)
        best = np.argpartition(-scores, count - 1)[:count] if count else np.empty(0, dtype=np.int64)
        return best[np.argsort(-scores[best], kind="stable")]

    def block_scores(self, queries: SparseVectors) -> BlockScores:
        """Of all documents for all queries, for the scores of retrieval."""

        def of(start: int, stop: int) -> Tensor:
            rows = [self.scores(*queries.row(query)) for query in range(start, stop)]
            return torch.from_numpy(np.stack(rows)) if rows else torch.empty(0, self.count)

        return BlockScores(of, len(queries), self.count, TIE)


def latent_sets(codes: Fired, count: int, W_dec: Tensor, kept: int) -> LatentSets:
    """Texts as weighted sets of latents, of norm 1, by how rare latents are among these texts; on the CPU.

    Args:
        codes: pooled codes of n texts.
        count: n.
        W_dec: [s, d].
        kept: latents of a text, those that weigh most.
    """
    vectors = sparse_vectors(codes, count, latent_weights(W_dec, codes, count, "idf"), kept)
    latents, values = torch.zeros(count, kept, dtype=torch.int64), torch.zeros(count, kept)
    lengths = torch.from_numpy(np.diff(vectors.starts))
    rows = torch.arange(count).repeat_interleave(lengths)
    slots = torch.arange(len(rows)) - torch.from_numpy(vectors.starts[:-1])[rows]
    latents[rows, slots] = torch.from_numpy(vectors.latents).long()
    values[rows, slots] = torch.from_numpy(vectors.values).abs()
    return LatentSets(latents, values, len(W_dec))
