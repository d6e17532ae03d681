"""Ranks and scores against loops over every document, and against torchmetrics where nothing is tied."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchmetrics.functional.retrieval import (
    retrieval_average_precision,
    retrieval_normalized_dcg,
    retrieval_recall,
    retrieval_reciprocal_rank,
)

from lightning_modules.functional import (
    BlockScores,
    Cosine,
    Relevance,
    average_precision,
    ndcg,
    recall,
    reciprocal_rank,
    relevant_ranks,
    retrieval,
    retrieval_scores,
)
from run_store import UserError


def given_scores(matrix, tie=0.0):
    return BlockScores(lambda start, stop: matrix[start:stop].clone(), *matrix.shape, tie)


def relevance_of(gains):
    """[q, m] gains, 0 where a document is not relevant, as pairs in no order."""
    pairs = gains.nonzero()[torch.randperm(int((gains > 0).sum()))]
    return Relevance(pairs[:, 0], pairs[:, 1], gains[pairs[:, 0], pairs[:, 1]])


def worst_order(scores, gains):
    """The documents of one query, as (score, gain), in the worst order that the scores allow."""
    return sorted(zip(scores, gains, strict=True), key=lambda document: (-document[0], document[1]))


def naive(scores, gains, k):
    """ndcg@k, mrr@k, recall@k and average precision of one query."""
    ranked = [gain for _, gain in worst_order(scores, gains)]
    relevant = sum(gain > 0 for gain in ranked)
    if not relevant:
        return [math.nan] * 4
    discounted = [
        sum(gain / math.log2(rank + 1) for rank, gain in enumerate(order[:k], start=1))
        for order in (ranked, sorted(ranked, reverse=True))
    ]
    hits = [rank for rank, gain in enumerate(ranked, start=1) if gain > 0]
    return [
        discounted[0] / discounted[1],
        1 / hits[0] if hits[0] <= k else 0.0,
        sum(rank <= k for rank in hits) / relevant,
        sum(place / rank for place, rank in enumerate(hits, start=1)) / relevant,
    ]


def told(found, k):
    columns = (ndcg(found, k), reciprocal_rank(found, k), recall(found, k), average_precision(found))
    return torch.stack(columns, dim=1)


@st.composite
def judged_scores(draw):
    """[q, m] scores and gains with very many ties."""
    queries, documents = draw(st.integers(1, 5)), draw(st.integers(1, 9))
    cells = queries * documents
    scores = draw(st.lists(st.integers(-2, 2), min_size=cells, max_size=cells))
    gains = draw(st.lists(st.sampled_from([0, 0, 1, 2, 3]), min_size=cells, max_size=cells))
    return [torch.tensor(values, dtype=torch.float32).view(queries, documents) for values in (scores, gains)]


@given(judged_scores(), st.integers(1, 10), st.sampled_from([1, 7, 2**22]))
def test_ranks_and_scores_are_those_of_loops(case, k, at_once):
    scores, gains = case
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(retrieval, "SCORES_AT_ONCE", at_once)
        found = relevant_ranks(given_scores(scores), relevance_of(gains))
    order = [worst_order(*row) for row in zip(scores.tolist(), gains.tolist(), strict=True)]
    expected = [
        (query, rank, gain)
        for query, ranked in enumerate(order)
        for rank, (_, gain) in enumerate(ranked, start=1)
        if gain > 0
    ]
    assert list(zip(*(part.tolist() for part in found[:3]), strict=True)) == expected
    rows = [naive(*row, k) for row in zip(scores.tolist(), gains.tolist(), strict=True)]
    torch.testing.assert_close(told(found, k), torch.tensor(rows, dtype=torch.float64), equal_nan=True)


@given(judged_scores())
def test_no_order_of_equal_scores_is_worse(case):
    scores, gains = case
    pessimistic = told(relevant_ranks(given_scores(scores), relevance_of(gains)), 10)
    for _ in range(3):
        broken = scores + 0.4 * torch.rand_like(scores)
        other = told(relevant_ranks(given_scores(broken), relevance_of(gains)), 10)
        assert bool(((pessimistic <= other + 1e-12) | pessimistic.isnan()).all())


@given(judged_scores())
def test_differences_within_the_tie_do_not_count(case):
    scores, gains = case
    noisy = scores + 0.1 * (torch.rand_like(scores) - 0.5)
    relevance = relevance_of(gains)
    torch.testing.assert_close(
        relevant_ranks(given_scores(noisy, tie=0.2), relevance), relevant_ranks(given_scores(scores), relevance)
    )


def test_relevant_documents_in_a_chain_of_ties_have_different_ranks():
    # 0.5, 0.4 and 0.3 are linked; 0.35 and 0.25 are within the tie of the least of them, and 0.2 is not
    scores = torch.tensor([[0.5, 0.4, 0.3, 0.35, 0.25, 0.1]])
    gains = torch.tensor([[3.0, 1.0, 2.0, 0.0, 0.0, 0.0]])
    found = relevant_ranks(given_scores(scores, tie=0.11), relevance_of(gains))
    assert found.ranks.tolist() == [3, 4, 5]
    assert found.gains.tolist() == [1, 2, 3]


@given(judged_scores(), st.data())
def test_excluded_documents_might_as_well_not_be_there(case, data):
    scores, gains = case
    queries, documents = scores.shape
    out = [data.draw(st.integers(0, documents - 1)) for _ in range(queries)]
    excluded = torch.tensor([[query, document] for query, document in enumerate(out)])
    found = relevant_ranks(given_scores(scores), relevance_of(gains), excluded)
    rows = []
    for row, judged, left in zip(scores.tolist(), gains.tolist(), out, strict=True):
        rows.append(naive(row[:left] + row[left + 1 :], judged[:left] + judged[left + 1 :], 3))
    torch.testing.assert_close(told(found, 3), torch.tensor(rows, dtype=torch.float64), equal_nan=True)


@pytest.mark.parametrize("k", [1, 3, 10, 100])
def test_scores_without_ties_are_those_of_torchmetrics(k):
    queries, documents = torch.randn(12, 8), torch.randn(40, 8)
    gains = torch.randint(0, 4, (12, 40)) * (torch.rand(12, 40) < 0.2)
    gains[:, 0] = 1
    found = relevant_ranks(Cosine().scores(queries, documents), relevance_of(gains.double()))
    # torchmetrics takes a score of 0 or less for a document that was not found
    above_0 = 2 + torch.nn.functional.cosine_similarity(queries[:, None], documents[None], dim=2)
    rows = [
        [
            retrieval_normalized_dcg(row, judged, top_k=min(k, 40)),
            retrieval_reciprocal_rank(row, judged > 0, top_k=k),
            retrieval_recall(row, judged > 0, top_k=min(k, 40)),
            retrieval_average_precision(row, judged > 0),
        ]
        for row, judged in zip(above_0, gains, strict=True)
    ]
    torch.testing.assert_close(told(found, k), torch.tensor(rows, dtype=torch.float64), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("documents", [7, 50, 333])
def test_a_collapsed_model_ranks_everything_last(documents):
    # with 7 documents a matrix product gives the equal rows scores that differ
    one = torch.randn(1, 37)
    scores = Cosine().scores(one.expand(documents, 37), one.expand(documents, 37) * torch.rand(documents, 1))
    found = relevant_ranks(scores, relevance_of(torch.eye(documents)))
    assert found.ranks.tolist() == [documents] * documents


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_scores_that_are_not_finite_are_refused(bad):
    scores = torch.zeros(3, 4)
    scores[2, 1] = bad
    with pytest.raises(UserError, match="not finite"):
        relevant_ranks(given_scores(scores), relevance_of(torch.ones(3, 4)))


def test_nothing_is_of_the_size_of_all_scores(monkeypatch):
    monkeypatch.setattr(retrieval, "SCORES_AT_ONCE", 64)
    asked = []

    def of(start, stop):
        asked.append((stop - start) * 20)
        return torch.rand(stop - start, 20)

    relevant_ranks(BlockScores(of, 50, 20, 0.0), relevance_of(torch.eye(50)[:, :20].roll(3, 0)))
    assert max(asked) <= 64


@pytest.mark.parametrize(("queries", "documents"), [(0, 0), (0, 3), (3, 0), (2, 3)])
def test_without_relevant_documents_there_is_no_score(queries, documents):
    found = relevant_ranks(given_scores(torch.zeros(queries, documents)), relevance_of(torch.zeros(queries, documents)))
    scores = retrieval_scores(found)
    assert list(scores) == ["ndcg@10", "mrr@10", "recall@1", "recall@10", "recall@100", "map"]
    for values in scores.values():
        assert values.shape == (queries,)
        assert bool(values.isnan().all())
