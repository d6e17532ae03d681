import math

import pytest
import torch

from lightning_modules.functional import bootstrap as module
from lightning_modules.functional import paired_bootstrap, paired_ratio


def test_the_interval_is_that_of_the_normal_approximation():
    differences = 0.1 + torch.randn(400, dtype=torch.float64)
    mean, low, high = paired_bootstrap(differences, seed=1)
    half = 1.96 * float(differences.std()) / 20
    assert mean == pytest.approx(float(differences.mean()))
    assert (low, high) == pytest.approx((mean - half, mean + half), abs=0.15 * half)


def test_a_wider_level_is_a_wider_interval():
    differences = torch.randn(50)
    narrow, wide = (paired_bootstrap(differences, seed=1, level=level) for level in (0.5, 0.99))
    assert wide.low < narrow.low < narrow.high < wide.high


def test_the_seed_makes_it_the_same_again(monkeypatch):
    differences = torch.randn(30)
    before = torch.get_rng_state()
    assert paired_bootstrap(differences, seed=5) == paired_bootstrap(differences, seed=5)
    assert paired_bootstrap(differences, seed=5) != paired_bootstrap(differences, seed=6)
    assert torch.equal(torch.get_rng_state(), before)
    at_once = paired_bootstrap(differences, seed=5, resamples=101)
    monkeypatch.setattr(module, "DRAWN_AT_ONCE", 64)
    assert paired_bootstrap(differences, seed=5, resamples=101) == pytest.approx(at_once)


def test_queries_without_a_score_do_not_count():
    differences = torch.tensor([1.0, math.nan, 3.0])
    assert paired_bootstrap(differences, seed=0) == paired_bootstrap(differences[[0, 2]], seed=0)
    assert all(math.isnan(value) for value in paired_bootstrap(torch.tensor([math.nan]), seed=0))


def test_one_difference_is_its_own_interval():
    assert paired_bootstrap(torch.tensor([0.25]), seed=0) == (0.25, 0.25, 0.25)


def test_a_share_is_that_of_the_sums_and_its_interval_that_of_the_delta_method():
    wholes = 1 + 0.5 * torch.randn(600, dtype=torch.float64)
    parts = 0.3 * wholes + 0.2 * torch.randn(600, dtype=torch.float64)
    share, low, high = paired_ratio(parts, wholes, seed=2)
    assert share == pytest.approx(float(parts.sum() / wholes.sum()))
    half = 1.96 * float((parts - share * wholes).std() / wholes.mean()) / math.sqrt(600)
    assert (low, high) == pytest.approx((share - half, share + half), abs=0.15 * half)


def test_a_share_of_nothing_is_no_number_and_nothing_fails():
    zeros = torch.zeros(5)
    assert math.isnan(paired_ratio(zeros, zeros, seed=0).mean)
    found = paired_ratio(torch.ones(4), torch.tensor([1.0, -1.0, 1.0, -1.0]), seed=0)
    assert found.low < 0
    assert found.high == math.inf
    assert all(math.isnan(value) for value in paired_ratio(torch.tensor([math.nan]), torch.ones(1), seed=0))


def test_shares_of_queries_without_a_score_do_not_count():
    parts, wholes = torch.tensor([1.0, math.nan, 3.0]), torch.tensor([2.0, 5.0, 4.0])
    assert paired_ratio(parts, wholes, seed=0) == paired_ratio(parts[[0, 2]], wholes[[0, 2]], seed=0)
