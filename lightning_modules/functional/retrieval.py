"""At which ranks queries find their relevant documents, and what follows from that.

Shapes: q queries, m documents, r relevant pairs of a query and a document.

Documents are ranked by score, and equal scores in the worst order for the model: those that are not relevant first,
then those that are, by ascending gain. A rank is therefore a count of scores that are no smaller, and nothing is sorted
but the relevant documents. Every score that is told comes from these ranks, and counts all relevant documents there
are, found or not.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lightning_modules.functional.score_spaces import BlockScores
from run_store import UserError

SCORES_AT_ONCE = 2**22
"""Scores held at once: 16 MB in float32."""
RECALL_AT = (1, 10, 100)


class Relevance(NamedTuple):
    """Which documents are relevant to which queries; a pair that is not here is not relevant. No pair is here twice."""

    queries: Tensor
    """[r] int64 places among the queries."""
    documents: Tensor
    """[r] int64 places among the documents."""
    gains: Tensor
    """[r] how relevant, > 0."""


class RelevantRanks(NamedTuple):
    """Where the relevant documents stand, by query and rank."""

    queries: Tensor
    """[r] int64 places, ascending."""
    ranks: Tensor
    """[r] int64 from 1, ascending for a query."""
    gains: Tensor
    """[r] float64."""
    counts: Tensor
    """[q] int64 relevant documents of each query."""


def relevant_ranks(scores: BlockScores, relevance: Relevance, excluded: Tensor | None = None) -> RelevantRanks:
    """Ranks of the relevant documents among all documents.

    Relevant documents of a query whose scores, sorted, are no more than `scores.tie` apart stand together, at the least
    of their scores; every other document whose score is not smaller than that, less the tie, ranks before them.

    Args:
        scores: of all documents for all queries.
        relevance: the pairs whose ranks are wanted.
        excluded: [e, 2] int64 places of queries and documents that are no candidates for them, relevant or not.

    Raises:
        UserError: a score is not finite.
    """
    if excluded is not None:
        relevance = _without(relevance, excluded, scores.documents)
    counts = torch.bincount(relevance.queries, minlength=scores.queries)
    order = relevance.queries.argsort(stable=True)
    queries, documents, gains = (part[order] for part in relevance)
    starts = [0, *counts.cumsum(0).tolist()]

    step = max(1, SCORES_AT_ONCE // max(1, scores.documents))
    ranks = [torch.zeros(0, dtype=torch.int64, device=queries.device)]
    sorted_gains = [gains.new_zeros(0)]
    for start in range(0, scores.queries, step):
        stop = min(start + step, scores.queries)
        pairs = slice(starts[start], starts[stop])
        if pairs.start == pairs.stop:
            continue
        block = _finite(scores.of(start, stop))
        if excluded is not None:
            rows, columns = excluded[(excluded[:, 0] >= start) & (excluded[:, 0] < stop)].unbind(1)
            block[rows - start, columns] = -torch.inf
        found = _ranks(block, queries[pairs] - start, documents[pairs], gains[pairs], scores.tie)
        ranks.append(found[0])
        sorted_gains.append(found[1])
    return RelevantRanks(queries, torch.cat(ranks), torch.cat(sorted_gains).double(), counts)


def _without(relevance: Relevance, excluded: Tensor, documents: int) -> Relevance:
    pairs = relevance.queries * documents + relevance.documents
    kept = ~torch.isin(pairs, excluded[:, 0] * documents + excluded[:, 1])
    return Relevance(*(part[kept] for part in relevance))


def _finite(block: Tensor) -> Tensor:
    # nan passes through both of these, at a tenth of what isfinite() costs
    if block.numel() and not all(bound.isfinite() for bound in torch.aminmax(block)):
        raise UserError(
            "scores of the evaluation are not finite, and would rank first: lower the learning rate, or compute in "
            "bfloat16 or float32 where the model overflows float16"
        )
    return block


def _ranks(block: Tensor, rows: Tensor, columns: Tensor, gains: Tensor, tie: float) -> tuple[Tensor, Tensor]:
    """Ranks and gains of a block's p pairs, by row and rank.

    Args:
        block: [b, m] scores.
        rows: [p] ascending.
        columns: [p].
        gains: [p].
        tie: how far apart equal scores may be.
    """
    own = block[rows, columns]
    order = own.argsort(descending=True, stable=True)
    order = order[rows[order].argsort(stable=True)]
    own, gains = own[order], gains[order]

    # groups of equal scores; the least of each is its last
    is_first = torch.ones_like(rows, dtype=torch.bool)
    is_first[1:] = (rows[1:] != rows[:-1]) | (own[1:] < own[:-1] - tie)
    group = is_first.cumsum(0) - 1
    last = torch.cat([is_first.nonzero().flatten()[1:], group.new_tensor([len(rows)])]) - 1
    last = last[group]
    by_gain = gains.argsort(stable=True)
    gains = gains[by_gain[group[by_gain].argsort(stable=True)]]

    place = torch.arange(len(rows), device=rows.device)
    slot = place - torch.searchsorted(rows, rows)
    no_smaller = _counts(block, rows, slot, own[last] - tie)
    return no_smaller - (last - place), gains


def _counts(block: Tensor, rows: Tensor, slot: Tensor, thresholds: Tensor) -> Tensor:
    """[p] int64: how many scores of a pair's row are no smaller than its threshold.

    One comparison of the block for the first pair of each row, one for the second, and so on: with few relevant
    documents this is far less than a sort.
    """
    counts = torch.empty_like(rows)
    for number in range(int(slot.max()) + 1):
        pairs = (slot == number).nonzero().flatten()
        compared = block if len(pairs) == len(block) else block[rows[pairs]]
        # a sum in int32 takes a fifth of the time of one in int64
        counts[pairs] = (compared >= thresholds[pairs, None]).sum(dim=1, dtype=torch.int32).long()
    return counts


def ndcg(found: RelevantRanks, k: int) -> Tensor:
    """[q] float64: Σ gain / log₂(1 + rank) over the first k ranks, divided by the greatest that it could be (Järvelin &
    Kekäläinen 2002); nan for a query without relevant documents.
    """
    best_first = found.gains.argsort(descending=True, stable=True)
    ideal_gains = found.gains[best_first[found.queries[best_first].argsort(stable=True)]]
    return _discounted(found, found.ranks, found.gains, k) / _discounted(found, _places(found), ideal_gains, k)


def reciprocal_rank(found: RelevantRanks, k: int) -> Tensor:
    """[q] float64: 1 / rank of the first relevant document, 0 where that is above k; nan for a query without any."""
    first = (_places(found) == 1) & (found.ranks <= k)
    return _totals(found, first / found.ranks.double()) / (found.counts > 0)


def recall(found: RelevantRanks, k: int) -> Tensor:
    """[q] float64: share of the relevant documents that stand in the first k ranks; nan for a query without any."""
    return _totals(found, (found.ranks <= k).double()) / found.counts


def average_precision(found: RelevantRanks) -> Tensor:
    """[q] float64: mean over all relevant documents of the precision at their ranks; nan for a query without any."""
    return _totals(found, _places(found) / found.ranks.double()) / found.counts


def retrieval_scores(found: RelevantRanks) -> dict[str, Tensor]:
    """What is told of retrieval, [q] float64 each by name; nan for a query without relevant documents."""
    return {
        "ndcg@10": ndcg(found, 10),
        "mrr@10": reciprocal_rank(found, 10),
        **{f"recall@{k}": recall(found, k) for k in RECALL_AT},
        "map": average_precision(found),
    }


def _places(found: RelevantRanks) -> Tensor:
    """[r] int64: which of its query's relevant documents each is, from 1."""
    starts = found.counts.cumsum(0) - found.counts
    return torch.arange(1, len(found.ranks) + 1, device=found.ranks.device) - starts[found.queries]


def _discounted(found: RelevantRanks, ranks: Tensor, gains: Tensor, k: int) -> Tensor:
    return _totals(found, torch.where(ranks <= k, gains / (1 + ranks.double()).log2(), 0))


def _totals(found: RelevantRanks, values: Tensor) -> Tensor:
    """[q]: the sum of a query's values [r]."""
    return values.new_zeros(len(found.counts)).index_add_(0, found.queries, values)
