"""Unit vectors and pairs of texts against plain Python."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_modules.functional import first_occurrences, occurring_with, unit, widened

KEYS = st.lists(st.integers(0, 5), max_size=9)


def test_unit_is_what_normalize_is_where_there_is_a_direction():
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(unit(x), torch.nn.functional.normalize(x, dim=-1))
    assert torch.autograd.gradcheck(unit, x)


def test_a_zero_vector_stays_zero_without_a_gradient_and_extreme_ones_become_unit():
    x = torch.tensor([[0.0, 0.0], [1e-41, 0.0], [3e30, 4e30], [3e-30, 4e-30]], requires_grad=True)
    y = unit(x)
    torch.testing.assert_close(y, torch.tensor([[0.0, 0.0], [0.0, 0.0], [0.6, 0.8], [0.6, 0.8]]))
    y.sum().backward()
    assert not x.grad[:2].any()
    assert x.grad.isfinite().all()


def test_widened():
    assert widened(torch.ones(1, dtype=torch.bfloat16)).dtype == torch.float32
    assert widened(torch.ones(1, dtype=torch.float64)).dtype == torch.float64


@given(KEYS)
@settings(max_examples=50)
def test_first_occurrences(keys):
    first, number = first_occurrences(torch.tensor(keys, dtype=torch.int64))
    assert first.tolist() == [keys.index(key) for key in sorted(set(keys))]
    assert [keys[first[n]] for n in number.tolist()] == keys


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3)), max_size=9), st.data())
@settings(max_examples=50)
def test_occurring_with(pairs, data):
    rows = data.draw(st.lists(st.sampled_from(range(len(pairs))), max_size=5)) if pairs else []
    keys, values = torch.tensor(pairs, dtype=torch.int64).view(-1, 2).T.contiguous()
    found = occurring_with(keys, values, torch.tensor(rows, dtype=torch.int64), 4)
    assert found.tolist() == [[(pairs[row][0], value) in pairs for value in range(4)] for row in rows]
