import math

import pytest
import torch

from lightning_modules.functional import (
    alignment,
    effective_rank,
    embedding_geometry,
    mean_pairwise_cosine,
    uniformity,
)


def unit(rows):
    return rows / rows.norm(dim=1, keepdim=True)


def pairs(n):
    return [(i, j) for i in range(n) for j in range(i + 1, n)]


@pytest.mark.parametrize("alpha", [1.0, 2.0])
def test_alignment_is_a_distance_of_unit_vectors(alpha):
    anchors, positives = torch.randn(5, 4, dtype=torch.float64), torch.randn(5, 4, dtype=torch.float64)
    expected = [float((a - p).norm()) ** alpha for a, p in zip(unit(anchors), unit(positives), strict=True)]
    assert alignment(anchors, positives, alpha).tolist() == pytest.approx(expected)
    assert alignment(anchors, 3 * anchors).tolist() == pytest.approx([0] * 5)


@pytest.mark.parametrize("at_once", [1, 30, 2**22])
@pytest.mark.parametrize("n", [2, 3, 17])
@pytest.mark.parametrize("t", [0.5, 2.0])
def test_uniformity_is_that_of_loops(monkeypatch, at_once, n, t):
    monkeypatch.setattr(embedding_geometry, "PAIRS_AT_ONCE", at_once)
    rows = torch.randn(n, 5, dtype=torch.float64)
    x = unit(rows)
    mean = sum(math.exp(-t * float((x[i] - x[j]).square().sum())) for i, j in pairs(n)) / len(pairs(n))
    assert float(uniformity(rows, t)) == pytest.approx(math.log(mean))


def test_uniformity_does_not_underflow():
    opposite = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    assert float(uniformity(opposite, t=1000)) == pytest.approx(-4000)


def test_embeddings_that_are_one_have_no_uniformity_and_rank_1():
    rows = torch.randn(1, 8).expand(20, 8)
    assert float(uniformity(rows)) == pytest.approx(0, abs=1e-5)
    assert float(mean_pairwise_cosine(rows)) == pytest.approx(1)
    assert float(effective_rank(rows)) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("n", [2, 3, 17])
def test_the_mean_cosine_is_that_of_loops(n):
    rows = torch.randn(n, 5, dtype=torch.float64)
    x = unit(rows)
    expected = sum(float(x[i] @ x[j]) for i, j in pairs(n)) / len(pairs(n))
    assert float(mean_pairwise_cosine(rows)) == pytest.approx(expected)


@pytest.mark.parametrize(("n", "d"), [(1, 6), (4, 6), (6, 6), (40, 6)])
def test_the_rank_is_the_entropy_of_singular_values(n, d):
    rows = torch.randn(n, d, dtype=torch.float64)
    singular = torch.linalg.svdvals(unit(rows))
    shares = (singular / singular.sum()).tolist()
    assert float(effective_rank(rows)) == pytest.approx(math.exp(-sum(p * math.log(p) for p in shares)))


def test_orthogonal_embeddings_have_full_rank():
    assert float(effective_rank(5 * torch.eye(7)[:4])) == pytest.approx(4)


def test_too_few_embeddings_have_no_geometry():
    for measure in (uniformity, mean_pairwise_cosine):
        assert math.isnan(float(measure(torch.randn(1, 4))))
        assert math.isnan(float(measure(torch.zeros(0, 4))))
    assert math.isnan(float(effective_rank(torch.zeros(0, 4))))
    assert alignment(torch.zeros(0, 4), torch.zeros(0, 4)).shape == (0,)
