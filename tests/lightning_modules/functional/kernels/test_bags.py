"""Kernels over bags against loops in float64."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lightning_modules.functional.encoding import linear_topk
from lightning_modules.functional.sparse import latent_sums, linear_kept, sort_by_latent, sparse_decode

ROUNDING = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 2e-3}
sizes = st.tuples(st.integers(1, 5), st.integers(1, 6), st.integers(1, 20), st.integers(1, 5), st.integers(0, 2**16))


def entries(device, dtype, b, d, s, k, seed):
    """weights [b, k], indices [b, k], table [s, d], rows [b, d]: latents may repeat, some weights are 0."""
    draw = torch.Generator().manual_seed(seed)
    weights, table = torch.randn(b, k, generator=draw), torch.randn(s, d, generator=draw)
    weights = weights * (torch.rand(b, k, generator=draw) < 0.8)
    indices = torch.randint(0, s, (b, k), generator=draw)
    rows = torch.randn(b, d, generator=draw)
    return weights.to(device, dtype), indices.to(device), table.to(device, dtype), rows.to(device, dtype)


def ragged(device, b, entries, seed):
    """Where b bags of that many entries begin; some bags are empty."""
    draw = torch.Generator().manual_seed(seed)
    cuts = torch.randint(0, entries + 1, (b - 1,), generator=draw).sort().values
    return torch.cat([torch.zeros(1, dtype=torch.int64), cuts]).to(device)


def owners_of(starts, entries):
    ends = [*starts[1:].tolist(), entries]
    return [row for row, (start, end) in enumerate(zip(starts.tolist(), ends, strict=True)) for _ in range(start, end)]


def naive_bag_sums(weights, indices, table, owners, bags):
    sums = torch.zeros(bags, table.shape[1], dtype=torch.float64)
    for owner, weight, index in zip(owners, weights.flatten().tolist(), indices.flatten().tolist(), strict=True):
        sums[owner] += weight * table[index].double().cpu()
    return sums


def naive_dots(rows, table, indices, owners):
    pairs = zip(owners, indices.flatten().tolist(), strict=True)
    return torch.tensor([float(rows[r].double() @ table[i].double()) for r, i in pairs], dtype=torch.float64)


def close(actual, expected, dtype):
    assert actual.dtype == dtype
    torch.testing.assert_close(
        actual.double().cpu(), expected, rtol=ROUNDING[dtype], atol=10 * ROUNDING[dtype], equal_nan=True
    )


@given(sizes)
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_bags_of_k_equal_the_loop_on_any_shape(device, bags, size):
    weights, indices, table, rows = entries(device, torch.float64, *size)
    owners = torch.arange(len(rows)).repeat_interleave(indices.shape[1]).tolist()
    close(
        bags.bag_sums(weights, indices, table),
        naive_bag_sums(weights, indices, table, owners, len(rows)),
        torch.float64,
    )
    dots = bags.gathered_dot(rows, table, indices)
    close(dots, naive_dots(rows, table, indices, owners).view(indices.shape), torch.float64)


@given(sizes)
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_ragged_bags_equal_the_loop_and_may_be_empty(device, bags, size):
    weights, indices, table, rows = entries(device, torch.float64, *size)
    weights, indices = weights.flatten(), indices.flatten()
    starts = ragged(device, len(rows), len(indices), size[-1])
    owners = owners_of(starts, len(indices))
    sums = naive_bag_sums(weights, indices, table, owners, len(rows))
    close(bags.bag_sums(weights, indices, table, starts), sums, torch.float64)
    dots = bags.gathered_dot(rows, table, indices, torch.tensor(owners, device=device))
    close(dots, naive_dots(rows, table, indices, owners), torch.float64)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("b", "d", "s", "k"), [(1, 1, 1, 1), (3, 130, 7, 7), (2, 300, 5, 17)])
def test_every_dtype_is_summed_in_float32(device, bags, dtype, b, d, s, k):
    weights, indices, table, rows = entries(device, dtype, b, d, s, k, 3)
    owners = torch.arange(b).repeat_interleave(k).tolist()
    close(bags.bag_sums(weights, indices, table), naive_bag_sums(weights, indices, table, owners, b), dtype)
    close(bags.gathered_dot(rows, table, indices), naive_dots(rows, table, indices, owners).view(b, k), dtype)


def test_no_entries_at_all_sum_to_zero(device, bags):
    none, table = torch.empty(0, device=device), torch.randn(5, 3, device=device)
    starts = torch.zeros(4, dtype=torch.int64, device=device)
    assert torch.equal(bags.bag_sums(none, none.long(), table, starts), torch.zeros(4, 3, device=device))
    assert bags.gathered_dot(torch.randn(4, 3, device=device), table, none.long(), none.long()).shape == (0,)


def test_what_is_not_finite_stays_so_where_it_is_used_and_nowhere_else(device, bags):
    table = torch.ones(4, 3, device=device)
    table[0], table[1, 2] = torch.nan, torch.inf
    indices = torch.tensor([[2, 3], [1, 3], [0, 2]], device=device)
    weights = torch.tensor([[1.0, 2.0], [0.0, 1.0], [1.0, 1.0]], device=device)
    sums = bags.bag_sums(weights, indices, table)
    close(sums, naive_bag_sums(weights, indices, table, [0, 0, 1, 1, 2, 2], 3), torch.float32)
    assert sums.isfinite().sum() == 3 + 2


@given(sizes)
@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_sums_by_latent_equal_the_loop_and_are_zero_where_no_row_keeps_it(device, bags, size):
    weights, indices, table, rows = entries(device, torch.float64, *size)
    latents = len(table)
    owners = torch.arange(len(rows)).repeat_interleave(indices.shape[1])
    expected = naive_bag_sums(weights, owners, rows, indices.flatten().tolist(), latents)
    close(latent_sums(weights, indices, rows, latents), expected, torch.float64)
    flat = latent_sums(weights.flatten(), indices.flatten(), rows, latents, owners.to(device))
    close(flat, expected, torch.float64)
    totals = bags.segment_totals(weights, *sort_by_latent(indices, latents))
    ones = torch.ones(len(rows), 1, dtype=torch.float64)
    close(totals, naive_bag_sums(weights, owners, ones, indices.flatten().tolist(), latents)[:, 0], torch.float64)


def test_a_latent_that_every_row_keeps_is_summed_over_many_blocks(device, bags):
    weights = torch.randn(300, 1, device=device)
    order, starts = sort_by_latent(torch.ones(300, 1, dtype=torch.int64, device=device), 3)
    totals = bags.segment_totals(weights, order, starts)
    close(totals, torch.tensor([0, float(weights.double().sum()), 0], dtype=torch.float64), torch.float32)


def test_results_are_the_same_bits_on_every_run_and_for_any_number_of_rows_asked_for_ahead(device, bags, monkeypatch):
    weights, indices, table, rows = entries(device, torch.float32, 9, 140, 4, 5, 0)

    def results():
        by_latent = sort_by_latent(indices, len(table))
        yield bags.bag_sums(weights, indices, table)
        yield bags.gathered_dot(rows, table, indices)
        yield latent_sums(weights, indices, rows, len(table), by_latent=by_latent)
        yield bags.segment_totals(weights, *by_latent)

    first = list(results())
    monkeypatch.setattr(bags, "ENTRIES_AHEAD", 8)
    assert all(torch.equal(a, b) for a, b in zip(first, results(), strict=True))


def test_gradcheck_through_selection_encoder_and_decode(device, bags):
    torch.manual_seed(1)
    x = torch.randn(2, 3, dtype=torch.float64, device=device)
    weight, bias, decoder = (
        torch.randn(*shape, dtype=torch.float64, device=device, requires_grad=True) for shape in ((5, 3), (5,), (5, 3))
    )

    def of_rows(weight, bias, decoder):
        return sparse_decode(*linear_topk(x, weight, bias, 2), decoder)

    def of_entries(weight, bias, decoder):
        values, indices = (kept.flatten() for kept in linear_topk(x, weight.detach(), bias.detach(), 2))
        rows = torch.arange(2, device=device).repeat_interleave(2)
        return sparse_decode(linear_kept(x, weight, bias, values, indices, rows), indices, decoder, rows[::2] * 2)

    parameters = (weight, bias, decoder)
    assert torch.autograd.gradcheck(of_rows, parameters)
    gradients = [torch.autograd.grad(path(*parameters).square().sum(), parameters) for path in (of_rows, of_entries)]
    torch.testing.assert_close(*gradients)
