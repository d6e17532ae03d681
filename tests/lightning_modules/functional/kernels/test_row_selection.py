"""The selection kernels against a stable sort of every row."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st


def naive(z, k):
    """By ascending index: of equal values the first are kept, NaN is the largest."""
    order = torch.sort(z, dim=1, descending=True, stable=True).indices
    indices = order[:, :k].sort(dim=1).values
    return z.gather(1, indices), indices


def demand_same(row_selection, z, k):
    values, indices = row_selection.largest(z, k)
    expected_values, expected_indices = naive(z, k)
    assert values.dtype == z.dtype
    assert torch.equal(indices, expected_indices)
    torch.testing.assert_close(values, expected_values, rtol=0, atol=0, equal_nan=True)


def awkward(device, dtype, length):
    """Rows of noise, of zeros of both signs, of few different numbers, and with what is not finite."""
    draw = torch.Generator().manual_seed(length)
    z = torch.randn(4, length, generator=draw)
    z[1] = torch.where(z[1] > 0, 0.0, -0.0)
    z[2] = torch.randint(-2, 2, (length,), generator=draw)
    z[3, ::5], z[3, 1::5], z[3, 2::5] = torch.inf, -torch.inf, -torch.nan
    return z.to(device, dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize(("length", "k"), [(1, 1), (7, 7), (8, 1), (33, 5)])
def test_awkward_rows_equal_the_sort(device, row_selection, length, k, dtype):
    demand_same(row_selection, awkward(device, dtype, length), k)


@pytest.mark.parametrize(("length", "k"), [(9, 8), (17, 1), (33, 5), (64, 8)])
def test_rows_longer_than_one_look_equal_the_sort(device, row_selection, monkeypatch, length, k):
    monkeypatch.setattr(row_selection, "GROUPS", 8)
    demand_same(row_selection, awkward(device, torch.float32, length), k)


@given(st.lists(st.integers(-3, 3), min_size=9, max_size=40), st.integers(1, 8))
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_ties_are_broken_alike_in_one_look_and_in_two(device, row_selection, numbers, k):
    z = torch.tensor([numbers], dtype=torch.float32, device=device)
    demand_same(row_selection, z, k)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(row_selection, "GROUPS", 8)
        demand_same(row_selection, z, k)


def test_the_largest_may_all_lie_in_one_group(device, row_selection, monkeypatch):
    monkeypatch.setattr(row_selection, "GROUPS", 8)
    z = torch.randn(2, 80, device=device)
    z[:, 3::8] += 100
    demand_same(row_selection, z, 4)
    demand_same(row_selection, z, 8)


def test_a_row_of_thousands_is_selected_from_in_one_look_and_in_two(device, row_selection):
    z = torch.randn(1, 3072, device=device)
    demand_same(row_selection, z, 32)
    demand_same(row_selection, torch.randn(1, 20001, device=device), 32)


def test_what_hardly_leaves_anything_out_is_left_to_the_eager_selection(device, row_selection):
    assert row_selection.selects(row_selection.GROUPS, row_selection.GROUPS)
    assert row_selection.selects(131072, 512)
    assert not row_selection.selects(131072, 131072)
    assert not row_selection.selects(2**24, 1024)
