import pytest
import torch
from torch.nn.functional import normalize

from explanations import PooledLatents, Retrieved, compare_indices, fidelity
from lightning_modules.functional import Fired, Relevance

D, S, N = 8, 12, 20


def texts(error, generator, count, like=None):
    """Texts of a few latents each, with the same ones as those of `like`."""
    codes = torch.zeros(count, S)
    if like is None:
        for row in range(count):
            chosen = torch.randperm(S, generator=generator)[:3]
            codes[row, chosen] = 1 + torch.rand(3, generator=generator)
    else:
        codes = like[:count].clone()
    W = normalize(torch.randn(S, D, generator=torch.Generator().manual_seed(3)), dim=1)
    reconstructed = codes @ W
    embeddings = reconstructed + error * torch.randn(count, D, generator=generator)
    rows, latents = codes.nonzero(as_tuple=True)
    return PooledLatents(embeddings, reconstructed, Fired(rows, latents, codes[rows, latents])), codes, W


def task(error=0.0, excluded=None):
    generator = torch.Generator().manual_seed(0)
    documents, codes, W = texts(error, generator, N)
    queries, _, _ = texts(error, generator, 5, codes)
    places = torch.arange(5)
    return Retrieved(queries, documents, Relevance(places, places, torch.ones(5)), excluded), W


def test_a_perfect_reconstruction_recovers_all_and_one_embedding_for_all_nothing():
    found = fidelity(task()[0], torch.ones(D))
    assert found["ndcg@10_recovered"] == pytest.approx(1)
    assert found["embedding_cosine"] == pytest.approx(1)
    assert found["original"] == found["reconstructed"]
    assert found["original"]["ndcg@10"] == pytest.approx(1)
    # all documents are equal, and of equals the relevant one ranks last
    assert found["mean_ablated"]["ndcg@10"] == 0
    assert found["ndcg@10_change"]["mean"] == 0


def test_the_share_recovered_is_reckoned_from_the_three_scores():
    found = fidelity(task(error=0.5)[0], torch.ones(D))
    clean, spliced, ablated = (found[way]["ndcg@10"] for way in ("original", "reconstructed", "mean_ablated"))
    assert clean != spliced
    assert found["ndcg@10_recovered"] == pytest.approx((spliced - ablated) / (clean - ablated))
    assert found["ndcg@10_change"]["mean"] == pytest.approx(spliced - clean)
    assert found["embedding_cosine"] < 0.99


def test_what_is_no_candidate_is_left_out_of_every_score():
    own = torch.arange(5).unsqueeze(1).expand(5, 2)
    found = fidelity(task(excluded=own)[0], torch.ones(D))
    assert found["original"]["ndcg@10"] != found["original"]["ndcg@10"]  # nothing relevant is left


def test_indices_stand_side_by_side_with_quality_bytes_and_time():
    retrieved, W = task(error=0.3)
    rows = compare_indices(retrieved, W, [2, None], ["norm", "idf"])
    assert [row["index"] for row in rows] == [
        "dense, float32",
        "dense, int8",
        "2 latents, norm",
        "all latents, norm",
        "2 latents, idf",
        "all latents, idf",
    ]
    dense, whole = rows[0], rows[3]
    assert dense["of_the_exact_10"] == 1
    assert dense["bytes"] == N * D * 4
    assert whole["bytes"] == (S + 1) * 8 + N * 3 * 6
    assert 0 < whole["of_the_exact_10"] <= 1
    assert all(row["seconds_per_query"] > 0 for row in rows if row["index"] != "dense, int8")


def test_the_diagonal_ranks_like_the_embeddings_where_directions_are_orthogonal():
    generator = torch.Generator().manual_seed(2)
    codes = torch.rand(N, S, generator=generator)
    rows, latents = codes.nonzero(as_tuple=True)
    pooled = PooledLatents(codes, codes, Fired(rows, latents, codes[rows, latents]))
    queries = PooledLatents(*(part[:5] for part in pooled[:2]), Fired(*(part[rows < 5] for part in pooled.codes)))
    places = torch.arange(5)
    both = compare_indices(
        Retrieved(queries, pooled, Relevance(places, places, torch.ones(5)), None), torch.eye(S), [None], ["norm"]
    )
    assert both[2]["of_the_exact_10"] > 0.95
    assert both[2]["ndcg@10"] == both[0]["ndcg@10"]
