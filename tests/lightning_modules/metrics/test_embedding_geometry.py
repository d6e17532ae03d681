import math

import pytest
import torch

from lightning_modules.functional import effective_rank, mean_pairwise_cosine, uniformity
from lightning_modules.metrics import EmbeddingGeometry
from lightning_modules.metrics.embedding_geometry import scattered
from run_store import UserError

D = 6


def in_one_piece(sample):
    norms = sample.norm(dim=1)
    scores = {
        "uniformity": uniformity(sample),
        "effective_rank": effective_rank(sample),
        "mean_cosine": mean_pairwise_cosine(sample),
        "norm": norms.mean(),
        "norm_spread": norms.std(correction=0),
    }
    return {name: value.float() for name, value in scores.items()}


def test_a_text_counts_once():
    texts, metric = torch.randn(20, D), EmbeddingGeometry(D)
    for rows in (torch.arange(0, 12), torch.arange(8, 20), torch.tensor([3, 3, 19])):
        metric.update(texts[rows], rows)
    torch.testing.assert_close(metric.compute(), in_one_piece(texts))


def test_the_sample_is_the_same_whatever_the_batches():
    texts, ids = torch.randn(50, D), torch.randperm(1000)[:50]
    chosen = []
    for order in (torch.arange(50), torch.randperm(50)):
        metric = EmbeddingGeometry(D, texts=15)
        for rows in order.split(7):
            metric.update(texts[rows], ids[rows])
            assert len(metric.ids[0]) <= 15
        chosen.append(metric.ids[0].tolist())
        sample = texts[[ids.tolist().index(number) for number in chosen[-1]]]
        torch.testing.assert_close(metric.compute(), in_one_piece(sample))
    assert chosen[0] == chosen[1]
    assert len(chosen[0]) == 15


def test_ranks_draw_one_sample_even_with_one_that_saw_nothing(on_ranks):
    texts, ids = torch.randn(40, D), torch.arange(40)
    whole = EmbeddingGeometry(D, texts=15)
    whole.update(texts, ids)

    def work(rank):
        metric = EmbeddingGeometry(D, texts=15)
        if rank < 2:
            metric.update(texts[rank * 15 : rank * 15 + 25], ids[rank * 15 : rank * 15 + 25])
        return metric.compute()

    expected = whole.compute()
    for scores in on_ranks(work, 3):
        torch.testing.assert_close(scores, expected)


def test_hashes_are_those_of_splitmix64_and_scatter():
    def splitmix(x):
        x = ((x ^ x >> 30) * 0xBF58476D1CE4E5B9) % 2**64
        x = ((x ^ x >> 27) * 0x94D049BB133111EB) % 2**64
        return x ^ x >> 31

    ids = torch.tensor([0, 1, 2, 2**40 + 7, -1])
    assert [int(h) % 2**64 for h in scattered(ids)] == [splitmix(int(i) % 2**64) for i in ids]
    first = scattered(torch.arange(1000)).argsort()[:100]
    assert 400 < float(first.float().mean()) < 600


def test_embeddings_that_are_not_finite_are_refused():
    with pytest.raises(UserError, match="1 of 2 embeddings of texts are not finite"):
        EmbeddingGeometry(2).update(torch.tensor([[0.0, 1.0], [torch.nan, 0.0]]), torch.arange(2))


def test_it_begins_anew():
    metric = EmbeddingGeometry(D)
    metric.update(torch.randn(4, D), torch.arange(4))
    metric.reset()
    with pytest.warns(UserWarning, match="before the ``update``"):
        assert all(math.isnan(value) for value in metric.compute().values())
