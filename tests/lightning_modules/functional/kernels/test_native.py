"""The C kernels against sorts and sums in float64."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lightning_modules.functional.codes import BatchCodes
from lightning_modules.functional.nested import nested_squared_error
from lightning_modules.functional.prefixes import prefix_errors


def demand_largest(native, z, bias, k, magnitude=False):
    values, indices = native.largest(z, bias, k, magnitude)
    exact = z + bias
    assert all(len(set(row)) == k for row in indices.tolist())
    torch.testing.assert_close(values, exact.gather(1, indices), rtol=0, atol=0, equal_nan=True)
    kept, best = (values.abs(), exact.abs()) if magnitude else (values, exact)
    # what is below 0 may be any, and NaN comes first
    expected = best.topk(k, dim=1).values.clamp_min(0)
    torch.testing.assert_close(
        kept.clamp_min(0).sort(1, descending=True).values, expected, rtol=0, atol=0, equal_nan=True
    )


@pytest.mark.parametrize("magnitude", [False, True])
@pytest.mark.parametrize(("latents", "k"), [(1, 1), (7, 7), (33, 5), (3072, 32), (3073, 40), (300, 299), (70_000, 64)])
def test_the_largest_of_awkward_rows(native, latents, k, magnitude):
    z = torch.randn(6, latents)
    z[1] = torch.where(z[1] > 0, 0.0, -0.0)
    z[2] = torch.randint(-2, 2, (latents,))
    z[3, ::5], z[3, 1::5] = torch.inf, -torch.inf
    z[4, 3::8] += 100
    demand_largest(native, z, 0.1 * torch.randn(latents), k, magnitude)


@given(st.lists(st.integers(-3, 3), min_size=9, max_size=200), st.integers(1, 9))
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_ties(native, numbers, k):
    demand_largest(native, torch.tensor([numbers], dtype=torch.float32), torch.zeros(len(numbers)), k)


@pytest.mark.parametrize("nan", [torch.nan, -torch.nan])
def test_what_is_not_a_number_is_kept(native, nan):
    z = torch.randn(2, 3072)
    z[0, 77] = nan
    assert 77 in native.largest(z, torch.zeros(3072), 4)[1][0]


def test_rounding_is_that_of_torch(native):
    x = torch.cat(
        [torch.randn(50, 21), torch.tensor([[0.0, -0.0, torch.inf, -torch.inf, torch.nan, 3.0e38, 1e-40] * 3])]
    )
    center = torch.randn(21)
    expected = (x - center).bfloat16()
    torch.testing.assert_close(native.rounded(x, center), expected, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize(
    ("rows", "latents", "width", "candidates", "k"), [(1, 1, 1, 1, 1), (9, 200, 17, 24, 16), (5, 3072, 64, 40, 32)]
)
def test_screened_values_are_exact_and_the_best_of_the_candidates(native, rows, latents, width, candidates, k):
    x, weight, bias = torch.randn(rows, width), torch.randn(latents, width), torch.randn(latents)
    coarse = (x @ weight.T).bfloat16()
    values, indices = native.screened(coarse, bias, x, weight, bias, candidates, k)
    exact = (x.double() @ weight.double().T + bias).float()
    torch.testing.assert_close(values, exact.gather(1, indices))
    found = torch.zeros_like(exact, dtype=torch.bool)
    found.scatter_(1, (coarse.float() + bias).topk(candidates, dim=1).indices, True)
    expected = exact.where(found, -torch.inf).topk(k, dim=1).values
    positive = expected > 0
    torch.testing.assert_close(values.sort(1, descending=True).values[positive], expected[positive])


@pytest.mark.parametrize("latents", [1, 63, 128, 200, 300])
def test_what_reaches_a_floor(native, latents):
    z, bias = torch.randn(7, latents), torch.randn(latents)
    z[2, 0] = torch.nan
    values, places = native.reaching(z, bias, 0.5)
    expected = (~((z + bias) < 0.5)).flatten().nonzero().squeeze(1)
    assert torch.equal(places, expected)
    assert torch.equal(values, (z + bias).flatten()[expected].nan_to_num(torch.inf))


@given(st.lists(st.sampled_from([0.0, 1e-38, 0.5, 0.5, 1.0, 3e38, float("inf")]), min_size=1, max_size=60), st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_nth_largest(native, numbers, data):
    n = data.draw(st.integers(1, len(numbers)))
    values = torch.tensor(numbers)
    assert native.nth_largest(values, n) == values.sort(descending=True).values[n - 1]


@given(st.lists(st.sampled_from([0.0, 0.5, 1.0, 1.0, 2.0, float("inf")]), max_size=60), st.integers(0, 60), st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_above_a_bar_and_the_first_at_it(native, numbers, equal, data):
    latents = data.draw(st.integers(1, 70))
    places = data.draw(st.lists(st.integers(0, 200), min_size=len(numbers), max_size=len(numbers), unique=True))
    values, places = torch.tensor(numbers), torch.tensor(sorted(places), dtype=torch.int64)
    at_bar = [place for place, value in enumerate(numbers) if value == 1.0][:equal]
    expected = [place for place, value in enumerate(numbers) if value > 1.0 or place in at_bar]
    kept, rows, indices = native.above_bar(values, places, latents, 1.0, equal)
    assert kept.tolist() == [numbers[place] for place in expected]
    assert (rows * latents + indices).tolist() == [int(places[place]) for place in expected]
    assert ((indices >= 0) & (indices < latents)).all()


@pytest.mark.parametrize(("rows", "kept", "width"), [(1, 1, 1), (5, 4, 16), (3, 11, 33), (40, 32, 384), (0, 3, 5)])
@pytest.mark.parametrize("uneven", [False, True])
def test_bags_and_dot_products(native, rows, kept, width, uneven):
    table, x = torch.randn(50, width), torch.randn(rows, width)
    indices, weights = torch.randint(50, (rows, kept)), torch.randn(rows, kept)
    starts, entry_rows = None, torch.arange(rows).repeat_interleave(kept)
    if uneven:  # the first half of the rows has nothing, the others have all
        indices, weights = indices.flatten(), weights.flatten()
        entry_rows = (entry_rows + rows) // 2
        starts = torch.searchsorted(entry_rows, torch.arange(rows))
    atoms = table[indices.flatten()].double()
    expected = torch.zeros(rows, width).double().index_add_(0, entry_rows, weights.flatten()[:, None] * atoms)
    torch.testing.assert_close(
        native.bag_sums(weights, indices, table, starts).double(), expected, rtol=1e-5, atol=1e-5
    )
    dots = (x[entry_rows].double() * atoms).sum(dim=1).view(indices.shape)
    torch.testing.assert_close(native.gathered_dot(x, table, indices, starts).double(), dots, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(("entries", "latents"), [(0, 3), (1, 1), (1000, 7), (50, 400)])
def test_entries_in_the_order_of_their_latents(native, entries, latents):
    indices = torch.randint(latents, (entries,))
    order, starts = native.by_latent(indices, latents)
    assert torch.equal(order, indices.argsort(stable=True))
    assert torch.equal(starts, torch.searchsorted(indices.sort().values, torch.arange(latents + 1)))


def test_entries_that_fired_are_counted(native):
    values, indices = torch.randn(9, 4).relu(), torch.randint(6, (9, 4))
    expected = torch.bincount(indices[values != 0], minlength=6)
    assert torch.equal(native.firing_counts(values, indices, 6), expected)
    assert torch.equal(native.firing_counts(values[:0], indices[:0], 3), torch.zeros(3, dtype=torch.int64))


@pytest.mark.parametrize(("rows", "width"), [(1, 1), (7, 33), (0, 5)])
@pytest.mark.parametrize("one_row", [False, True])
def test_errors_of_rows(native, rows, width, one_row):
    x, y = torch.randn(rows, width), torch.randn(width) if one_row else torch.randn(rows, width)
    errors, sums = native.row_errors(x, y, True)
    assert torch.equal(errors, y - x)
    torch.testing.assert_close(sums.double(), (y.double() - x.double()).square().sum(dim=1), rtol=1e-5, atol=0)
    none, again = native.row_errors(x, y, False)
    assert none is None
    torch.testing.assert_close(again, sums)


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize(
    ("rows", "k", "latents", "width"), [(1, 1, 1, 1), (30, 4, 7, 17), (9, 2, 400, 64), (3, 0, 5, 8)]
)
@pytest.mark.parametrize("named", [False, True])
def test_sums_by_latent(native, monkeypatch, threads, rows, k, latents, width, named):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    weights, indices, source = torch.randn(rows, k), torch.randint(latents, (rows, k)), torch.randn(rows, width)
    expected = torch.zeros(latents, width, dtype=torch.float64)
    terms = weights.double().unsqueeze(2) * source.double().unsqueeze(1)
    expected.index_add_(0, indices.flatten(), terms.flatten(0, 1))
    order, starts = native.by_latent(indices.flatten(), latents)
    rows_of = torch.arange(rows).repeat_interleave(k) if named else None
    sums = native.latent_sums(weights.flatten(), order, starts, rows_of, k, source)
    torch.testing.assert_close(sums.double(), expected, rtol=1e-5, atol=1e-5)


def of_hierarchical_topk(dtype):
    draw = torch.Generator().manual_seed(3)
    values, indices = torch.rand(11, 5, generator=draw), torch.randint(40, (11, 5), generator=draw)
    W_dec, target = torch.randn(40, 13, generator=draw), torch.randn(11, 13, generator=draw)
    leaves = [leaf.to(dtype).requires_grad_() for leaf in (values, W_dec, target)]
    error = nested_squared_error(leaves[0], indices, leaves[1], leaves[2], [0.0, 0.25, 0.5, 0.0, 0.25])
    return error, *torch.autograd.grad(error, leaves)


def of_matryoshka(dtype):
    draw = torch.Generator().manual_seed(4)
    dense = torch.rand(11, 40, generator=draw).sub(0.8).relu().to(dtype)
    dense[3] = 0
    W_dec, target = torch.randn(40, 13, generator=draw), torch.randn(11, 13, generator=draw)
    leaves = [leaf.to(dtype).requires_grad_() for leaf in (dense, W_dec, target)]
    error, each = prefix_errors(BatchCodes.of(leaves[0]), leaves[1], torch.tensor([1, 8, 8, 40]), leaves[2])
    return error, each, *torch.autograd.grad(error, leaves)


@pytest.mark.usefixtures("native")
@pytest.mark.parametrize("made", [of_hierarchical_topk, of_matryoshka])
def test_nested_errors_and_their_gradients_equal_the_eager_ones_in_float64(made):
    for ours, exact in zip(made(torch.float32), made(torch.float64), strict=True):
        torch.testing.assert_close(ours.double(), exact, rtol=1e-5, atol=1e-5)


@pytest.mark.usefixtures("native")
@pytest.mark.parametrize("made", [of_hierarchical_topk, of_matryoshka])
def test_the_number_of_threads_changes_no_bit(made, monkeypatch):
    several = {}
    for threads in (1, 2, 5):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        several[threads] = made(torch.float32)
    for threads in (2, 5):
        assert all(torch.equal(one, other) for one, other in zip(several[1], several[threads], strict=True))
