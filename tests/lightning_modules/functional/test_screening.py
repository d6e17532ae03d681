"""What a product in bfloat16 finds against the exact product, where no two values are within its rounding."""

import pytest
import torch
from torch.testing import assert_close

from lightning_modules.functional import linear_batch_topk, linear_topk
from lightning_modules.functional.screening import candidates_for


def encoder(b=300, d=48, s=400, seed=0, bias=0.0, outlier=1.0):
    torch.manual_seed(seed)
    x, weight = torch.randn(b, d, dtype=torch.float64), torch.randn(s, d, dtype=torch.float64) / d**0.5
    x[:, 3] = x[:, 3].abs() * outlier  # a dimension that dominates, as language models have
    return x, weight, torch.randn(s, dtype=torch.float64) * 0.1 + bias - outlier * 0.8 * (outlier > 1) * weight[:, 3]


CASES = [
    {},
    {"bias": -3.0},
    {"bias": 2.0},
    {"outlier": 100.0},
    {"s": 9, "d": 5},
    {"b": 1},
    {"b": 4097, "s": 1100, "d": 7},
]


ROUNDING = 0.03
"""A pre-activation below it may be rounded below 0 and be missed."""


def dense(values, indices, s):
    return torch.zeros(len(values), s, dtype=values.dtype).scatter_add(1, indices, values)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("k", [1, 8])
def test_the_same_latents_have_the_same_values(case, k):
    x, weight, bias = encoder(**case)
    exact, screened = (
        dense(*linear_topk(x, weight, bias, k, screening=screening), len(weight)) for screening in (False, True)
    )
    assert_close(screened, exact, rtol=0, atol=ROUNDING)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("k", [1, 8])
def test_the_same_latents_are_kept_of_a_batch(case, k):
    x, weight, bias = encoder(**case)
    exact, screened = (linear_batch_topk(x, weight, bias, k, screening=screening) for screening in (False, True))
    assert_close(screened.dense(), exact.dense(), rtol=0, atol=ROUNDING)
    assert_close(screened.least, exact.least, rtol=0, atol=ROUNDING)


def test_gradients_are_those_of_the_exact_selection():
    x, weight, bias = encoder()
    grads = []
    for screening in (False, True):
        leaves = [tensor.clone().requires_grad_() for tensor in (weight, bias)]
        values, _ = linear_topk(x, *leaves, 8, screening=screening)
        values.square().sum().backward()
        grads.append([leaf.grad for leaf in leaves])
    for exact, screened in zip(*grads, strict=True):
        assert_close(screened, exact)


def test_what_is_kept_instead_of_a_missed_value_differs_from_it_by_rounding_alone():
    """All latents are nearly the same, so that rounding decides which are candidates."""
    torch.manual_seed(0)
    x, direction = torch.randn(200, 48), torch.randn(48)
    weight = direction + 1e-3 * torch.randn(400, 48)
    values, indices = linear_topk(x, weight, torch.zeros(400), 8, screening=True)
    z = x @ weight.T
    assert_close(values, z.gather(1, indices).relu())
    off = z.topk(8).values[:, -1].relu() - values.amin(dim=1)
    assert off.amax() > 0
    assert (off <= 4 * 2.0**-8 * x.norm(dim=1) * weight.norm(dim=1).max()).all()


def test_what_all_rows_have_in_common_is_not_rounded_away():
    x, weight, bias = encoder()
    common = 1000 * torch.randn(48, dtype=torch.float64)
    exact = linear_topk(x, weight, bias, 8)[1].sort().values
    screened = linear_topk(x + common, weight, bias - weight @ common, 8, screening=True)[1].sort().values
    assert torch.equal(exact, screened)


@pytest.mark.parametrize("where", ["x", "weight", "bias"])
def test_what_is_not_a_number_is_seen(where):
    x, weight, bias = encoder()
    {"x": x, "weight": weight, "bias": bias}[where].view(-1)[5] = torch.nan
    assert not linear_topk(x, weight, bias, 8, screening=True)[0].isfinite().all()
    assert not linear_batch_topk(x, weight, bias, 8, screening=True).values.isfinite().all()


def test_no_more_candidates_than_latents():
    assert candidates_for(32, 3072) == 40
    assert candidates_for(64, 3072) == 80
    assert candidates_for(1, 3072) == 9
    assert candidates_for(8, 9) == 9
