import pytest
import torch

from lightning_modules.functional import triplet_cosines
from run_store import UserError


def drawn(b=6, n=3, u=9, d=5):
    negatives = torch.randint(-1, u, (b, n))
    return torch.randn(u, d), torch.randint(0, u, (b,)), torch.randint(0, u, (b,)), negatives


@pytest.mark.parametrize(("b", "n"), [(6, 3), (1, 1), (4, 0), (0, 2), (0, 0)])
def test_cosines_and_wins_are_those_of_loops(b, n):
    texts, anchors, positives, negatives = drawn(b, n)
    found = triplet_cosines(texts, anchors, positives, negatives)
    assert found.negatives.shape == found.there.shape == found.wins().shape == (b, n)

    def cosine(i, j):
        return float(torch.nn.functional.cosine_similarity(texts[i], texts[j], dim=0))

    for row in range(b):
        positive = cosine(anchors[row], positives[row])
        assert float(found.positives[row]) == pytest.approx(positive, abs=1e-6)
        for column, place in enumerate(negatives[row].tolist()):
            assert bool(found.there[row, column]) == (place >= 0)
            if place >= 0:
                negative = cosine(anchors[row], place)
                assert float(found.negatives[row, column]) == pytest.approx(negative, abs=1e-6)
                wins = place != int(positives[row]) and positive > negative
                assert bool(found.wins()[row, column]) == wins
            else:
                assert not found.wins()[row, column]


@pytest.mark.parametrize("d", [1, 5, 37, 384])
@pytest.mark.parametrize("n", [1, 2, 6])
def test_a_collapsed_model_wins_nothing(d, n):
    _, anchors, positives, negatives = drawn(20, n, 30)
    texts = torch.randn(1, d).expand(30, d)
    assert not bool(triplet_cosines(texts, anchors, positives, negatives).wins().any())


def test_embeddings_that_are_not_finite_are_refused():
    texts, *places = drawn()
    texts[3, 1] = torch.inf
    with pytest.raises(UserError, match="1 of 9 embeddings of triplets are not finite"):
        triplet_cosines(texts, *places)
