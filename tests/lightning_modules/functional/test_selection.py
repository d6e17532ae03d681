"""Selection of a row's largest values against sorting."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_modules.functional.selection import largest, largest_magnitudes, largest_numbers

cases = st.tuples(st.integers(1, 5), st.integers(1, 700)).flatmap(
    lambda shape: st.tuples(st.just(shape), st.integers(1, min(40, shape[1])), st.integers(0, 2**16))
)
DTYPES = [torch.float64, torch.float32, torch.bfloat16]


def drawn(shape, seed, dtype):
    """Values with many ties, some zeros of either sign and rows that are negative throughout."""
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(shape, generator=generator).mul(4).round().div(4).to(dtype)
    z[::3] -= 2
    return z


@pytest.mark.parametrize("select", [largest, largest_numbers])
@pytest.mark.parametrize("dtype", DTYPES)
@given(cases)
@settings(max_examples=80, deadline=None)
def test_what_is_above_0_is_that_of_a_sorted_row(select, dtype, case):
    shape, k, seed = case
    z = drawn(shape, seed, dtype)
    values, indices = select(z, k)
    assert torch.equal(values, z.gather(1, indices))
    assert all(row.unique().numel() == k for row in indices)
    expected = z.sort(dim=1, descending=True).values[:, :k]
    assert torch.equal(values.relu().sort(dim=1, descending=True).values, expected.relu())


@given(cases)
@settings(max_examples=80, deadline=None)
def test_magnitudes_keep_their_sign(case):
    shape, k, seed = case
    z = drawn(shape, seed, torch.float32)
    values, indices = largest_magnitudes(z, k)
    assert torch.equal(values, z.gather(1, indices))
    expected = z.abs().sort(dim=1, descending=True).values[:, :k]
    assert torch.equal(values.abs().sort(dim=1, descending=True).values, expected)


@pytest.mark.parametrize("bad", [torch.nan, -torch.nan, torch.inf])
@pytest.mark.parametrize("place", [0, 17, 699])
def test_what_is_not_a_number_or_infinite_is_kept(bad, place):
    z = torch.randn(4, 700)
    z[2, place] = bad
    assert place in largest(z, 9)[1][2]
    assert place in largest_magnitudes(z, 9)[1][2]


@pytest.mark.parametrize(("s", "k"), [(3072, 32), (3001, 32), (97, 6), (40, 12)])
def test_fewer_values_are_compared_than_a_row_has(s, k, monkeypatch):
    compared = []
    plain = torch.Tensor.topk

    def counting(values, *args, **settings):
        compared.append(values.shape[1])
        return plain(values, *args, **settings)

    monkeypatch.setattr(torch.Tensor, "topk", counting)
    largest(torch.randn(8, s), k)
    assert sum(compared) <= max(s, 2.5 * (s * k) ** 0.5 + s / k)
    assert sum(compared) < s / 2 or s < 1000
