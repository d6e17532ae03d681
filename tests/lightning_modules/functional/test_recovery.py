"""The matching against every possible one, and against scipy where it is installed."""

import itertools

import pytest
import torch

from lightning_modules.functional import best_matching, max_cosines


@pytest.mark.parametrize(("n", "s"), [(1, 1), (1, 5), (4, 4), (5, 7), (7, 5), (6, 6)])
def test_the_matching_is_the_best_of_all(n, s):
    true, learned = torch.randn(n, 3), torch.randn(s, 3)
    cosines = torch.nn.functional.cosine_similarity(true.double()[:, None], learned.double()[None], dim=2)
    small, large = sorted((n, s))
    wide = cosines if n <= s else cosines.T
    best = max(
        sum(float(wide[row, column]) for row, column in enumerate(columns))
        for columns in itertools.permutations(range(large), small)
    )
    matching = best_matching(true, learned)
    assert float(matching.cosines.sum()) == pytest.approx(best)
    assert len(set(matching.true.tolist())) == len(set(matching.learned.tolist())) == small
    assert matching.true.tolist() == sorted(matching.true.tolist())
    torch.testing.assert_close(matching.cosines, cosines[matching.true, matching.learned])


def test_the_matching_is_scipys():
    optimize = pytest.importorskip("scipy.optimize")
    true, learned = torch.randn(120, 16), torch.randn(200, 16)
    cosines = torch.nn.functional.cosine_similarity(true.double()[:, None], learned.double()[None], dim=2)
    rows, columns = optimize.linear_sum_assignment(-cosines.numpy())
    assert float(best_matching(true, learned).cosines.sum()) == pytest.approx(float(cosines[rows, columns].sum()))


def test_a_permuted_and_scaled_dictionary_is_found_whole():
    true = torch.randn(30, 8)
    order = torch.randperm(30)
    learned = torch.cat([3 * true[order], torch.randn(9, 8)])
    matching = best_matching(true, learned)
    assert torch.equal(order[matching.learned], torch.arange(30))
    torch.testing.assert_close(matching.cosines, torch.ones(30, dtype=torch.float64))
    torch.testing.assert_close(max_cosines(true, learned), torch.ones(30))


def test_one_learned_atom_serves_the_maximum_twice_and_the_matching_once():
    true, learned = torch.tensor([[1.0, 0.0], [1.0, 0.1]]), torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    assert max_cosines(true, learned).min() > 0.99
    assert best_matching(true, learned).cosines.min() < 0.2


def test_a_signed_atom_stands_for_its_opposite_too():
    true = torch.randn(20, 8)
    order = torch.randperm(20)
    turned = true[order] * torch.where(torch.arange(20) % 2 == 0, 1.0, -1.0)[:, None]
    matching = best_matching(true, turned, signed=True)
    assert torch.equal(order[matching.learned], torch.arange(20))
    expected = torch.where(matching.learned % 2 == 0, 1.0, -1.0).double()
    torch.testing.assert_close(matching.cosines, expected)
    torch.testing.assert_close(max_cosines(true, turned, signed=True), torch.ones(20))
    assert max_cosines(true, turned).min() < 0.99
