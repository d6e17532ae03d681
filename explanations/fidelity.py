"""How much of what an embedding model is for is in the latents of its token states: retrieval by reconstructions, and
by an index of the latents alone.

Shapes: q queries, n documents, d width.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from explanations.pooled_latents import PooledLatents
from explanations.sparse_index import SparseIndex, Weighting, latent_weights, sparse_vectors
from lightning_modules.functional import (
    BlockScores,
    Cosine,
    Int8,
    Relevance,
    paired_bootstrap,
    relevant_ranks,
    retrieval_scores,
    row_cosines,
    share_recovered,
    unit_rows,
)

SCORE = "ndcg@10"
TOLD = (SCORE, "mrr@10", "recall@10", "recall@100")
FOUND = 10
TIMED = 200
"""Queries that are searched for one by one."""


class Retrieved(NamedTuple):
    """A task of retrieval whose texts were read."""

    queries: PooledLatents
    documents: PooledLatents
    relevance: Relevance
    excluded: Tensor | None
    """int64 [e, 2] places of queries and of documents that are no candidates for them."""

    def scores(self, scores: BlockScores) -> dict[str, Tensor]:
        """[q] float64 by name."""
        return retrieval_scores(relevant_ranks(scores, self.relevance, self.excluded))


def fidelity(task: Retrieved, mean_state: Tensor) -> dict[str, Any]:
    """What is left of retrieval when reconstructions are pooled in the place of the token states of queries and
    documents, special tokens among them. As a reference the mean state stands in the place of every state: all texts
    become one, and of equal scores those of relevant documents rank last.

    `ndcg@10_recovered` is (NDCG@10 of the reconstructions − of the mean) / (NDCG@10 as it is − of the mean): 1 where
    the reconstruction serves as well as the states.

    Args:
        task: the texts.
        mean_state: [d].
    """
    ways = {
        "original": (task.queries.embeddings, task.documents.embeddings),
        "reconstructed": (task.queries.reconstructed, task.documents.reconstructed),
        "mean_ablated": tuple(mean_state.expand_as(part.embeddings) for part in (task.queries, task.documents)),
    }
    found = {way: task.scores(Cosine().scores(*embeddings)) for way, embeddings in ways.items()}
    means = {way: {name: float(scores[name].nanmean()) for name in TOLD} for way, scores in found.items()}
    change = paired_bootstrap(found["reconstructed"][SCORE] - found["original"][SCORE], seed=0)
    before, after = (
        torch.cat([getattr(part, name) for part in (task.queries, task.documents)])
        for name in ("embeddings", "reconstructed")
    )
    clean, spliced, ablated = (torch.tensor(means[way][SCORE]) for way in ("original", "reconstructed", "mean_ablated"))
    return {
        **means,
        f"{SCORE}_change": {"mean": change.mean, "low": change.low, "high": change.high},
        f"{SCORE}_recovered": float(share_recovered(clean, spliced, ablated)),
        "embedding_cosine": float(row_cosines(before, after).mean()),
    }


class Searched(NamedTuple):
    """An index of the documents of a task."""

    name: str
    scores: BlockScores
    nbytes: int
    search: Callable[[int], npt.NDArray[np.int64]] | None
    """From the place of a query to the best documents, best first; None where that is not timed here."""


def compare_indices(
    task: Retrieved, W_dec: Tensor, kept: Sequence[int | None], weightings: Sequence[Weighting]
) -> list[dict[str, Any]]:
    """Dense indices (exact, and a byte a dimension) and sparse ones side by side: scores of retrieval, bytes of the
    documents, the share of the exact index's first ten documents that are found, and the median seconds of a search
    for the first ten, one query at a time.

    Args:
        task: the texts.
        W_dec: [s, d].
        kept: latents of a text that an index keeps, of queries as of documents; None keeps all.
        weightings: of latents.
    """
    dense = _dense(task)
    indices = [dense, _bytes(task)]
    for weighting in weightings:
        weights = latent_weights(W_dec, task.documents.codes, len(task.documents.embeddings), weighting)
        indices += [_sparse(task, weights, weighting, each) for each in kept]
    queries = range(min(TIMED, len(task.queries.embeddings)))
    exact = [set(dense.search(query).tolist()) for query in queries] if dense.search else []
    return [_row(task, index, exact) for index in indices]


def _row(task: Retrieved, index: Searched, exact: Sequence[set[int]]) -> dict[str, Any]:
    scores = task.scores(index.scores)
    row: dict[str, Any] = {"index": index.name, **{name: float(scores[name].nanmean()) for name in TOLD}}
    row["bytes"] = index.nbytes
    row["bytes_per_document"] = index.nbytes / max(1, index.scores.documents)
    if index.search is None:
        return row
    seconds, shared = [], []
    for query, best in enumerate(exact):
        started = time.perf_counter()
        found = index.search(query)
        seconds.append(time.perf_counter() - started)
        shared.append(len(best.intersection(found.tolist())) / max(1, len(best)))
    return {**row, f"of_the_exact_{FOUND}": float(np.mean(shared)), "seconds_per_query": float(np.median(seconds))}


def _dense(task: Retrieved) -> Searched:
    queries, documents = (unit_rows(part.embeddings).cpu() for part in (task.queries, task.documents))
    rows = documents.numpy()

    def search(query: int) -> npt.NDArray[np.int64]:
        scores = rows @ queries[query].numpy()
        best = np.argpartition(-scores, min(FOUND, len(scores)) - 1)[:FOUND]
        return best[np.argsort(-scores[best], kind="stable")]

    return Searched("dense, float32", Cosine().scores(queries, documents), rows.nbytes, search)


def _bytes(task: Retrieved) -> Searched:
    documents = task.documents.embeddings
    # a byte a dimension, and each dimension's two numbers
    nbytes = documents.numel() + 2 * 4 * documents.shape[1]
    return Searched("dense, int8", Int8().scores(task.queries.embeddings, documents), nbytes, None)


def _sparse(task: Retrieved, weights: Tensor, weighting: str, kept: int | None) -> Searched:
    queries, documents = (
        sparse_vectors(part.codes, len(part.embeddings), weights, kept) for part in (task.queries, task.documents)
    )
    index = SparseIndex.of(documents)
    name = f"{'all' if kept is None else kept} latents, {weighting}"
    return Searched(
        name, index.block_scores(queries), index.nbytes, lambda query: index.search(*queries.row(query), FOUND)
    )
