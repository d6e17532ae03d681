"""What is collected over batches and ranks, against the same in one piece."""

import math

import pytest
import torch

from lightning_modules.functional import Binary, Cosine, Int8, Relevance, ndcg, relevant_ranks, retrieval_scores
from lightning_modules.metrics import Retrieval
from run_store import UserError

D = 6


def drawn(queries=12, documents=30):
    """Embeddings, ids in no order, and pairs of ids."""
    query_ids, document_ids = torch.randperm(100)[:queries], torch.randperm(100)[:documents] + 100
    pairs = torch.stack([query_ids.repeat(2), document_ids[torch.randint(documents, (2 * queries,))]], dim=1)
    return torch.randn(queries, D), query_ids, torch.randn(documents, D), document_ids, pairs.unique(dim=0)


def parts(case, sizes):
    """The case in as many batches as there are numbers of queries, with documents that overlap."""
    queries, query_ids, documents, document_ids, pairs = case
    start = 0
    for size in sizes:
        rows = slice(start, start + size)
        theirs = pairs[torch.isin(pairs[:, 0], query_ids[rows])]
        seen = torch.isin(document_ids, theirs[:, 1]) | (torch.rand(len(document_ids)) < 0.5)
        seen |= (torch.arange(len(document_ids)) % len(sizes)) == sizes.index(size)
        yield queries[rows], query_ids[rows], documents[seen], document_ids[seen], theirs
        start += size


def in_one_piece(case, space=None):
    queries, query_ids, documents, document_ids, pairs = case
    places = [{int(number): place for place, number in enumerate(ids)} for ids in (query_ids, document_ids)]
    relevance = Relevance(
        torch.tensor([places[0][int(query)] for query, _ in pairs]),
        torch.tensor([places[1][int(document)] for _, document in pairs]),
        torch.ones(len(pairs)),
    )
    return relevant_ranks((space or Cosine()).scores(queries, documents), relevance)


def means(found):
    return {name: values.nanmean().float() for name, values in retrieval_scores(found).items()}


def test_batches_that_overlap_give_what_one_piece_gives():
    case, metric = drawn(), Retrieval(D)
    for part in parts(case, [5, 4, 3]):
        metric.update(*part)
        metric.update(*part)
    torch.testing.assert_close(metric.compute(), means(in_one_piece(case)))


def test_other_spaces_are_told_under_their_names():
    case = drawn()
    metric = Retrieval(D, spaces={"dim4": Cosine(4), "int8": Int8(), "binary": Binary()})
    metric.update(*case)
    expected = means(in_one_piece(case))
    for name, space in metric.spaces.items():
        expected |= {f"{name}{key}": value for key, value in means(in_one_piece(case, space)).items()}
    assert "int8/ndcg@10" in expected
    torch.testing.assert_close(metric.compute(), expected)


def test_single_queries_can_be_compared():
    case, metric = drawn(), Retrieval(D)
    metric.update(*case)
    single = metric.per_query()
    assert single.queries.tolist() == sorted(case[1].tolist())
    expected = ndcg(in_one_piece(case), 10)[case[1].argsort()]
    torch.testing.assert_close(single.scores["ndcg@10"], expected)


def test_gains_count_and_0_is_not_relevant():
    metric = Retrieval(2)
    ids, embeddings = torch.tensor([7]), torch.tensor([[1.0, 0.0]])
    documents = torch.tensor([[0.9, 0.1], [0.5, 0.5], [0.1, 0.9]])
    pairs = torch.tensor([[7, 1], [7, 2], [7, 3]])
    metric.update(embeddings, ids, documents, torch.tensor([1, 2, 3]), pairs, torch.tensor([0.0, 1.0, 3.0]))
    scores = metric.compute()
    discounted = 1 / math.log2(3) + 3 / math.log2(4)
    assert float(scores["ndcg@10"]) == pytest.approx(discounted / (3 + 1 / math.log2(3)))
    assert float(scores["recall@1"]) == 0
    assert float(scores["mrr@10"]) == 0.5


def test_a_query_need_not_find_itself():
    texts, ids = torch.randn(9, D), torch.arange(9)
    pairs = torch.stack([ids, ids.roll(1)], dim=1)
    with_itself, without = Retrieval(D), Retrieval(D, exclude_own=True)
    for metric in (with_itself, without):
        metric.update(texts, ids, texts, ids, pairs)
    assert float(with_itself.compute()["recall@1"]) == 0
    found = without.per_query().scores["mrr@10"]
    cosines = torch.nn.functional.cosine_similarity(texts[:, None], texts[None], dim=2).fill_diagonal_(-2)
    for query in range(9):
        assert float(found[query]) == pytest.approx(
            1 / int((cosines[query] >= cosines[query, pairs[query, 1]]).sum()), abs=1e-9
        )


def test_ranks_share_what_they_have_seen_even_one_that_saw_nothing(on_ranks):
    case = drawn()
    halves = list(parts(case, [7, 5]))
    expected = means(in_one_piece(case))

    def work(rank):
        metric = Retrieval(D)
        if rank < 2:
            metric.update(*halves[rank])
        return metric.compute(), metric.per_query().scores["ndcg@10"]

    for scores, single in on_ranks(work, 3):
        torch.testing.assert_close(scores, expected)
        torch.testing.assert_close(single.nanmean().float(), expected["ndcg@10"])


def test_it_begins_anew():
    metric = Retrieval(D)
    metric.update(*drawn())
    metric.compute()
    metric.reset()
    with pytest.warns(UserWarning, match="before the ``update``"):
        assert all(math.isnan(value) for value in metric.compute().values())
    case = drawn()
    metric.update(*case)
    torch.testing.assert_close(metric.compute(), means(in_one_piece(case)))


@pytest.mark.parametrize(
    ("pairs", "gains", "message"),
    [
        ([[1, 5], [1, 5]], [1.0, 2.0], "query 1 and document 5 have two different gains"),
        ([[1, 5]], [-1.0], "must be 0 or more"),
        ([[1, 5]], [math.nan], "must be 0 or more"),
        ([[2, 5]], [1.0], "query 2 is named in a relevance pair, and no batch has brought it"),
        ([[1, 6]], [1.0], "document 6 is named in a relevance pair"),
    ],
)
def test_pairs_that_make_no_sense_are_refused(pairs, gains, message):
    metric = Retrieval(D)
    one = torch.randn(1, D)
    metric.update(one, torch.tensor([1]), one, torch.tensor([5]), torch.tensor(pairs), torch.tensor(gains))
    with pytest.raises(UserError, match=message):
        metric.compute()
