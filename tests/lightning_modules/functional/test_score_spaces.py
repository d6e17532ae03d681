import pytest
import torch

from lightning_modules.functional import Binary, Cosine, Int8, ScoreSpace
from run_store import UserError

SPACES: list[ScoreSpace] = [Cosine(), Int8(), Binary(), Binary(shortlist=3)]


def all_scores(space, queries, documents):
    scores = space.scores(queries, documents)
    assert (scores.queries, scores.documents) == (len(queries), len(documents))
    return torch.cat([scores.of(start, min(start + 2, len(queries))) for start in range(0, len(queries), 2)])


def test_cosines_are_those_of_loops():
    queries, documents = torch.randn(5, 6, dtype=torch.float64), torch.randn(7, 6, dtype=torch.float64)
    expected = [[torch.dot(q, d) / (q.norm() * d.norm()) for d in documents] for q in queries]
    torch.testing.assert_close(all_scores(Cosine(), queries, documents), torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("make", [Cosine, Int8, Binary, lambda dimensions=None: Binary(dimensions, 2)])
def test_truncated_embeddings_are_scored_like_short_ones(make):
    queries, documents = torch.randn(5, 12), torch.randn(7, 12)
    torch.testing.assert_close(
        all_scores(make(dimensions=5), queries, documents), all_scores(make(), queries[:, :5], documents[:, :5])
    )


def test_more_dimensions_than_there_are_are_refused():
    with pytest.raises(UserError, match="dimensions of Cosine is 9, and the embeddings have 8: lower it"):
        Cosine(dimensions=9).scores(torch.randn(2, 8), torch.randn(2, 8))


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_embeddings_that_are_not_finite_are_refused(space, bad):
    # the sign of nan is that of any negative number, so that scores would not tell
    fine, broken = torch.randn(4, 8), torch.randn(4, 8)
    broken[1, 2] = bad
    with pytest.raises(UserError, match="1 of 4 embeddings of documents are not finite"):
        space.scores(fine, broken)
    with pytest.raises(UserError, match="1 of 4 embeddings of queries are not finite"):
        space.scores(broken, fine)


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_scores_of_any_precision_are_float32_at_least(space, dtype):
    found = all_scores(space, torch.randn(3, 8).to(dtype), torch.randn(4, 8).to(dtype))
    assert found.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)


@pytest.mark.parametrize("space", SPACES)
def test_there_may_be_no_documents_and_no_queries(space):
    assert all_scores(space, torch.randn(2, 8), torch.zeros(0, 8)).shape == (2, 0)
    assert space.scores(torch.zeros(0, 8), torch.randn(2, 8)).of(0, 0).shape == (0, 2)


def test_an_embedding_of_zeros_is_as_good_as_any():
    assert bool((all_scores(Cosine(), torch.zeros(1, 4), torch.randn(3, 4)) == 0).all())
