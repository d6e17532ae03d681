"""What a product in bfloat16 finds against the exact product."""

import pytest
import torch
from torch.testing import assert_close

from lightning_modules.functional import linear_batch_topk, linear_topk
from lightning_modules.functional import screening as screening_module
from lightning_modules.functional.screening import Screen, candidates_for


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


def dense(values, indices, s):
    return torch.zeros(len(values), s, dtype=values.dtype).scatter_add(1, indices, values)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("k", [1, 8])
def test_the_same_latents_have_the_same_values(case, k):
    x, weight, bias = encoder(**case)
    exact, screened = (
        dense(*linear_topk(x, weight, bias, k, screening=screening), len(weight)) for screening in (False, True)
    )
    assert torch.equal(exact != 0, screened != 0)
    assert_close(screened, exact)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("k", [1, 8])
def test_the_same_latents_are_kept_of_a_batch(case, k):
    x, weight, bias = encoder(**case)
    exact, screened = (linear_batch_topk(x, weight, bias, k, screening=screening) for screening in (False, True))
    assert torch.equal(exact.indices, screened.indices)
    assert torch.equal(exact.rows, screened.rows)
    assert_close(screened.values, exact.values)
    assert_close(screened.least, exact.least)


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


def test_rows_that_rounding_leaves_in_doubt_are_done_again():
    """All latents are nearly the same, so that rounding alone says which is larger."""
    torch.manual_seed(0)
    x, direction = torch.randn(200, 48), torch.randn(48)
    weight = direction + 1e-5 * torch.randn(400, 48)
    z = x.double() @ weight.double().T
    values, indices = linear_topk(x, weight, torch.zeros(400), 8, screening=True)
    firing = z.amax(dim=1) > 0
    assert_close(values[firing].sum(dim=1).double(), z.topk(8).values[firing].sum(dim=1), rtol=0, atol=1e-4)
    kept_least = z.gather(1, indices).amin(dim=1)
    assert (kept_least >= z.topk(8).values[:, -1] - 1e-5)[firing].all()


def test_on_ordinary_rows_hardly_any_is_done_again(monkeypatch):
    x, weight, bias = (part.float() for part in encoder(b=2000, d=128, s=1024))
    again = []
    monkeypatch.setattr(screening_module, "largest", lambda z, k: again.append(len(z)) or z.topk(k, dim=1))
    linear_topk(x, weight, bias, 32, screening=True)
    assert sum(rows for rows in again if rows != 2000) < 100


def test_no_value_is_off_by_more_than_the_bound():
    for outlier in (1.0, 100.0):
        x, weight, bias = (part.float() for part in encoder(b=2000, d=128, s=1024, outlier=outlier))
        screen = Screen.of(weight, bias)
        exact = x.double() @ weight.double().T + bias.double()
        coarse = screen.coarse(x).double()
        assert ((coarse - exact).abs() <= screen.missed(x)[:, None] + 2.0**-8 * coarse.abs()).all()


@pytest.mark.parametrize("where", ["x", "weight", "bias"])
def test_what_is_not_a_number_is_seen(where):
    x, weight, bias = encoder()
    {"x": x, "weight": weight, "bias": bias}[where].view(-1)[5] = torch.nan
    assert not linear_topk(x, weight, bias, 8, screening=True)[0].isfinite().all()
    assert not linear_batch_topk(x, weight, bias, 8, screening=True).values.isfinite().all()


def test_no_more_candidates_than_latents():
    assert candidates_for(32, 3072) == 48
    assert candidates_for(1, 3072) == 9
    assert candidates_for(8, 9) == 9
