"""Matching pursuit against its definition, one row and one step at a time."""

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from lightning_modules.functional import entries, matching_pursuit, merge_repeats, pursuit


def case(b, s, d, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x, atoms = (torch.randn(n, d, dtype=torch.float64, generator=generator) for n in (b, s))
    return x, torch.nn.functional.normalize(atoms, dim=1)


def naive_pursuit(x, atoms, k, residual_threshold=0.0):
    """Values and indices, differentiable through plain autograd."""
    values, indices = [], []
    for row in x:
        residual, going, taken, numbers = row, True, [], []
        for _ in range(k):
            correlations = [residual @ atom for atom in atoms]
            best = max(range(len(atoms)), key=lambda i: correlations[i].item())
            value = correlations[best].relu() if going else torch.zeros_like(correlations[best])
            residual = residual - value * atoms[best]
            going = going and residual.norm().item() >= residual_threshold
            taken.append(value)
            numbers.append(best)
        values.append(torch.stack(taken))
        indices.append(numbers)
    return torch.stack(values), torch.tensor(indices)


def assert_equal_to_the_definition(x, atoms, k, residual_threshold=0.0):
    upstream = torch.randn(len(x), k, dtype=torch.float64)
    results = []
    for pursue in (matching_pursuit, naive_pursuit):
        leaves = [t.clone().requires_grad_() for t in (x, atoms)]
        values, indices = pursue(*leaves, k, residual_threshold)
        results.append([values, *torch.autograd.grad(values, leaves, upstream), indices])
    for mine, naive in zip(results[0][:3], results[1][:3], strict=True):
        torch.testing.assert_close(mine, naive)
    fired = results[0][0] > 0
    assert torch.equal(results[0][3][fired], results[1][3][fired])


shapes = st.tuples(st.integers(1, 6), st.integers(1, 12), st.integers(1, 5), st.integers(1, 8), st.integers(0, 2**16))


@given(shapes, st.sampled_from([0.0, 0.5, 1.5]))
@settings(max_examples=40, deadline=None)
def test_values_choices_and_gradients_equal_the_definition_on_any_shape(shape, residual_threshold):
    b, s, d, k, seed = shape
    x, atoms = case(b, s, d, seed)
    for values, _ in (matching_pursuit(x, atoms, k, residual_threshold), naive_pursuit(x, atoms, k)):
        # once few atoms have taken all that they can, rounding decides whether they correlate with the rest
        assume(not ((values > 0) & (values < 1e-9)).any())
    assert_equal_to_the_definition(x, atoms, k, residual_threshold)


@pytest.mark.parametrize("atoms", [64, 96, 130])
def test_the_largest_correlation_is_found_block_by_block(atoms):
    correlations = torch.randn(50, atoms)
    assert torch.equal(pursuit._largest_in_rows(correlations), correlations.argmax(dim=1))


@pytest.mark.parametrize("gram_elements", [0, 10**6])
@pytest.mark.parametrize("elements", [1, 90, 10**6])
def test_neither_the_gram_matrix_nor_parts_change_anything(monkeypatch, gram_elements, elements):
    monkeypatch.setattr(pursuit, "GRAM_ELEMENTS", gram_elements)
    monkeypatch.setattr(pursuit, "CPU_CORRELATIONS", elements)
    monkeypatch.setattr(entries, "CPU_ELEMENTS", elements)
    assert_equal_to_the_definition(*case(9, 14, 6), 5)


def test_gradcheck_in_float64():
    x, atoms = case(5, 9, 4)
    leaves = [x.requires_grad_(), atoms.requires_grad_()]
    assert torch.autograd.gradcheck(lambda x, atoms: matching_pursuit(x, atoms, 6, 0.4)[0], leaves)


def test_what_is_taken_and_what_is_left_add_up_and_what_is_left_shrinks():
    x, atoms = case(20, 30, 6)
    lengths = [x.norm(dim=1)]
    for k in range(1, 9):
        values, indices = matching_pursuit(x, atoms, k)
        left = x - torch.einsum("bk,bkd->bd", values, atoms[indices])
        torch.testing.assert_close(left.norm(dim=1) ** 2 + values.square().sum(dim=1), x.norm(dim=1) ** 2)
        lengths.append(left.norm(dim=1))
    assert (torch.stack(lengths).diff(dim=0) <= 0).all()


def test_a_row_stops_below_the_threshold_and_no_sooner():
    x, atoms = case(50, 30, 6)
    all_values, _ = matching_pursuit(x, atoms, 12)
    values, _ = matching_pursuit(x, atoms, 12, 0.8)
    left = (x.square().sum(dim=1, keepdim=True) - all_values.square().cumsum(dim=1)).clamp_min(0).sqrt()
    made = torch.nn.functional.pad((left >= 0.8).cumprod(dim=1)[:, :-1], (1, 0), value=1).bool()
    assert 0 < int((~made).sum()) < made.numel()
    torch.testing.assert_close(values, all_values * made)


def test_a_row_that_no_atom_points_along_takes_nothing():
    atoms = torch.eye(4)[:2]
    values, _ = matching_pursuit(torch.tensor([[-1.0, -2.0, 3.0, 0.0], [0.0, 0.0, 0.0, 0.0]]), atoms, 3)
    assert not values.any()


def test_correlations_in_bf16_decide_the_choice_alone():
    x, atoms = (t.float() for t in case(64, 40, 16))
    with torch.autocast("cpu", torch.bfloat16):
        values, indices = matching_pursuit(x, atoms, 5)
    residual = x.clone()
    for step in range(5):
        taken = atoms[indices[:, step]]
        torch.testing.assert_close(values[:, step], (residual * taken).sum(dim=1).relu())
        residual -= values[:, step, None] * taken


def test_repeats_are_added_up_and_every_latent_that_fired_is_named_once():
    values = torch.tensor([[1.0, 2.0, 4.0, 8.0], [1.0, 2.0, 4.0, 8.0], [0.0, 3.0, 5.0, 0.0]], dtype=torch.float64)
    indices = torch.tensor([[3, 1, 3, 3], [2, 0, 1, 4], [1, 1, 1, 1]])
    merged, latents = merge_repeats(values, indices)
    expected = torch.zeros(3, 5, dtype=torch.float64).scatter_add(1, indices, values)
    assert torch.equal(torch.zeros_like(expected).scatter_add(1, latents, merged), expected)
    for row, numbers in zip(merged, latents, strict=True):
        fired = numbers[row != 0].tolist()
        assert len(fired) == len(set(fired))
    assert torch.autograd.gradcheck(lambda v: merge_repeats(v, indices)[0], values.requires_grad_())


def test_the_gradient_is_the_same_for_any_number_of_threads():
    x, atoms = case(600, 96, 24)
    before, gradients = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            mine = atoms.clone().requires_grad_()
            matching_pursuit(x, mine, 6)[0].square().sum().backward()
            gradients.append(mine.grad)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*gradients)
