"""The errors of all prefixes against loops, and their gradient against autograd through those loops."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_modules.functional import entries, nested_squared_error


def case(b, k, s, d, seed=0):
    """Values, indices, W_dec, target and weights, some of which are 0."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.rand(b, k, dtype=torch.float64, generator=generator).sort(dim=1, descending=True).values
    indices = torch.stack([torch.randperm(s, generator=generator)[:k] for _ in range(b)])
    W_dec, target = (torch.randn(n, d, dtype=torch.float64, generator=generator) for n in (s, b))
    weights = torch.rand(k, dtype=torch.float64, generator=generator).mul(2).sub(0.5).clamp_min(0).tolist()
    return values, indices, W_dec, target, weights


def naive_error(values, indices, W_dec, target, weights):
    total = target.new_zeros(())
    for r in range(len(values)):
        reconstruction = torch.zeros_like(target[r])
        for j, weight in enumerate(weights):
            reconstruction = reconstruction + values[r, j] * W_dec[indices[r, j]]
            total = total + weight * (target[r] - reconstruction).square().sum()
    return total


def value_and_gradients(error, values, indices, W_dec, target, weights):
    leaves = [t.clone().requires_grad_() for t in (values, W_dec, target)]
    value = error(leaves[0], indices, leaves[1], leaves[2], weights)
    return [value, *torch.autograd.grad(1.7 * value, leaves, materialize_grads=True)]


shapes = st.tuples(st.integers(1, 7), st.integers(1, 12), st.integers(1, 5)).flatmap(
    lambda bsd: st.tuples(st.just(bsd), st.integers(1, bsd[1]), st.integers(0, 2**16))
)


@given(shapes)
@settings(max_examples=40, deadline=None)
def test_error_and_gradients_equal_the_loops_on_any_shape(sizes):
    (b, s, d), k, seed = sizes
    given_case = case(b, k, s, d, seed)
    ours, expected = (value_and_gradients(error, *given_case) for error in (nested_squared_error, naive_error))
    for mine, naive in zip(ours, expected, strict=True):
        torch.testing.assert_close(mine, naive)


@pytest.mark.parametrize("elements", [1, 60, 10**6])
def test_rows_in_parts_give_what_they_give_together(monkeypatch, elements):
    """Parts of 1 row, of 2 with 1 left over, and all rows at once."""
    monkeypatch.setattr(entries, "CPU_ELEMENTS", elements)
    given_case = case(7, 5, 11, 6)
    for mine, naive in zip(
        value_and_gradients(nested_squared_error, *given_case),
        value_and_gradients(naive_error, *given_case),
        strict=True,
    ):
        torch.testing.assert_close(mine, naive)


def test_gradcheck_in_float64():
    values, indices, W_dec, target, weights = case(4, 3, 6, 5)
    leaves = [t.requires_grad_() for t in (values, W_dec, target)]
    assert torch.autograd.gradcheck(lambda v, w, t: nested_squared_error(v, indices, w, t, weights), leaves)


def test_only_kept_rows_of_the_decoder_get_a_gradient():
    values, indices, W_dec, target, _ = case(3, 2, 20, 4)
    _, _, gradient, _ = value_and_gradients(nested_squared_error, values, indices, W_dec, target, [0.5, 0.5])
    kept = torch.zeros(20, dtype=torch.bool).index_fill_(0, indices.flatten(), True)
    assert gradient[kept].any(dim=1).all()
    assert not gradient[~kept].any()


def test_the_gradient_is_the_same_for_any_number_of_threads():
    values, indices, W_dec, target, weights = case(600, 6, 96, 24)
    before, gradients = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            gradients.append(value_and_gradients(nested_squared_error, values, indices, W_dec, target, weights)[1:])
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(one, other) for one, other in zip(*gradients, strict=True))


def test_nothing_of_size_batch_times_k_times_width_is_kept_for_backward():
    values, indices, W_dec, target, weights = case(64, 8, 32, 16)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor.numel()) or tensor, lambda t: t):
        nested_squared_error(values.requires_grad_(), indices, W_dec, target, weights)
    assert max(kept) == 64 * 16
