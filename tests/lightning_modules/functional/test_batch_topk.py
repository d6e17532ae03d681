"""The selection over a batch against sorting all its values, on one process and on two."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_modules.functional import batch_topk, linear_batch_topk, sparse_decode

TOO_MUCH = 2**56


def naive(x, weight, bias, k):
    """Dense codes: all positive values of the batch sorted, of equal ones the first of the batch first."""
    z = x @ weight.T + bias
    places = [(row, latent) for row in range(len(z)) for latent in range(z.shape[1]) if z[row, latent] > 0]
    places.sort(key=lambda place: -z[place].item())
    mask = torch.zeros_like(z)
    for place in places[: k * len(x)]:
        mask[place] = 1
    return z * mask


def whole_numbers(b, d, s, seed=0):
    """x, weight, bias of small integers: many values are equal, and no product is rounded."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(-2, 3, shape, generator=generator).double() for shape in ((b, d), (s, d), (s,))]


def uneven(b=40, d=6, s=32):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(b, d, generator=generator, dtype=torch.float64)
    scales = torch.logspace(-2, 2, b, dtype=torch.float64)[:, None]
    weight, bias = (torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in ((s, d), (s,)))
    return x * scales, weight, bias


shapes = st.tuples(st.integers(1, 9), st.integers(1, 5), st.integers(1, 13)).flatmap(
    lambda bds: st.tuples(st.just(bds), st.integers(1, bds[2]), st.integers(0, 2**16))
)


@given(shapes)
@settings(max_examples=80)
def test_what_is_kept_and_in_which_order_is_that_of_sorting_even_among_equals(case):
    (b, d, s), k, seed = case
    x, weight, bias = whole_numbers(b, d, s, seed)
    expected = naive(x, weight, bias, k)
    codes = linear_batch_topk(x, weight, bias, k)
    assert torch.equal(codes.dense(), expected)
    places = codes.rows * s + codes.indices
    assert torch.equal(places, expected.flatten().nonzero().squeeze(1))
    positive = expected[expected > 0]
    assert float(codes.least) == (float(positive.min()) if len(positive) else torch.inf)


@given(shapes)
@settings(max_examples=80)
def test_the_way_that_asks_no_gpu_keeps_the_same(case):
    """It runs on a CPU too, where `linear_batch_topk` takes the faster way."""
    (b, d, s), k, seed = case
    x, weight, bias = whole_numbers(b, d, s, seed)
    values, rows, latents, least = batch_topk._at_once(x, weight, bias, k)
    places = rows * s + latents
    assert len(values) == len(places) == k * b
    found = torch.zeros(b * s, dtype=torch.float64).index_put((places,), values).view(b, s)
    assert torch.equal(found, naive(x, weight, bias, k))
    assert torch.equal(least, linear_batch_topk(x, weight, bias, k).least)
    assert (places.diff() > 0).all()


@pytest.mark.parametrize("k", [1, 4, 31])
def test_rows_of_very_different_norms(k):
    x, weight, bias = uneven()
    codes = linear_batch_topk(x, weight, bias, k)
    torch.testing.assert_close(codes.dense(), naive(x, weight, bias, k))
    assert codes.rows.bincount(minlength=40).unique().numel() > 1


def test_one_row_may_keep_everything():
    x = torch.ones(8, 1) * torch.tensor([100.0, *[0.01] * 7])[:, None]
    codes = linear_batch_topk(x, torch.linspace(1, 2, 32)[:, None], torch.zeros(32), 4)
    assert torch.equal(codes.rows, torch.zeros(32, dtype=torch.int64))
    assert torch.equal(codes.indices, torch.arange(32))


def test_a_sample_that_promises_too_much_is_not_believed():
    """Only the rows that the guess is made from are large."""
    b, s, k = 4 * batch_topk.SAMPLED_ROWS, 16, 8
    x = torch.full((b, 1), 0.01, dtype=torch.float64)
    x[::4] = torch.arange(1.0, batch_topk.SAMPLED_ROWS + 1, dtype=torch.float64)[:, None]
    weight = torch.cat([torch.ones(1, 1), -torch.ones(3, 1), torch.ones(s - 4, 1)]).double()
    bias = torch.linspace(0, 1e-3, s, dtype=torch.float64)
    expected = naive(x, weight, bias, k)
    assert (expected[1::4] != 0).any()
    assert torch.equal(linear_batch_topk(x, weight, bias, k).dense(), expected)


def test_equal_values_do_not_make_a_batch_keep_more_and_the_first_are_kept():
    codes = linear_batch_topk(torch.ones(6, 2), torch.ones(40, 2), torch.zeros(40), 3)
    assert torch.equal(codes.rows, torch.zeros(18, dtype=torch.int64))
    assert torch.equal(codes.indices, torch.arange(18))


def test_a_batch_without_positive_values_keeps_nothing_and_has_a_gradient_of_zero():
    x, weight = torch.randn(5, 3), torch.randn(8, 3, requires_grad=True)
    bias, W_dec = torch.full((8,), -1e9, requires_grad=True), torch.randn(8, 3, requires_grad=True)
    codes = linear_batch_topk(x, weight, bias, 2)
    assert len(codes.values) == 0
    assert codes.least == torch.inf
    codes.decode(W_dec).sum().backward()
    assert not any(p.grad.any() for p in (weight, bias, W_dec))


@pytest.mark.parametrize("way", ["_by_comparing", "_at_once"])
def test_a_value_that_is_not_a_number_is_kept_so_that_it_is_seen(way):
    x = torch.randn(6, 3)
    x[2, 1] = torch.nan
    weight, bias = torch.randn(8, 3), torch.zeros(8)
    values, rows, *_ = (
        batch_topk._by_comparing(x, batch_topk._Encoder(weight, bias, None), 2)
        if way == "_by_comparing"
        else batch_topk._at_once(x, weight, bias, 2)
    )
    assert len(values) == 12
    assert not values[rows == 2].isfinite().any()


def test_gradcheck_through_selection_and_decode():
    x, weight, bias = uneven(5, 3, 8)
    parameters = [p.requires_grad_() for p in (weight / 8, bias / 8, torch.randn(8, 4, dtype=torch.float64))]

    def decoded(weight, bias, W_dec):
        return linear_batch_topk(x, weight, bias, 2).decode(W_dec)

    assert torch.autograd.gradcheck(decoded, parameters)


def test_gradients_equal_those_of_the_dense_arithmetic():
    x, weight, bias = uneven()
    W_dec, upstream = torch.randn(32, 5, dtype=torch.float64), torch.randn(40, 5, dtype=torch.float64)
    ours = [p.clone().requires_grad_() for p in (weight, bias, W_dec)]
    theirs = [p.clone().requires_grad_() for p in (weight, bias, W_dec)]
    codes = linear_batch_topk(x, ours[0], ours[1], 4)
    assert (codes.rows.bincount(minlength=40) == 0).any()
    codes.decode(ours[2]).backward(upstream)
    kept = codes.dense().detach() > 0
    (((x @ theirs[0].T + theirs[1]) * kept) @ theirs[2]).backward(upstream)
    for mine, reference in zip(ours, theirs, strict=True):
        assert reference.grad.any()
        torch.testing.assert_close(mine.grad, reference.grad)


def test_values_and_gradients_are_the_weights_kind_under_autocast():
    x, weight, bias = (part.float() for part in uneven())
    weight.requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        codes = linear_batch_topk(x, weight, bias, 4)
    assert codes.values.dtype == codes.least.dtype == torch.float32
    assert len(codes.values) == 160
    codes.decode(torch.randn(32, 5)).sum().backward()
    assert weight.grad.dtype == torch.float32


def test_rows_that_keep_different_numbers_decode_as_if_filled_up_with_zeros():
    values, indices = torch.rand(4, 3), torch.randint(7, (4, 3))
    filled = torch.tensor([[1, 1, 0], [0, 0, 0], [1, 1, 1], [1, 0, 0]], dtype=torch.bool)
    starts, W_dec = torch.tensor([0, 2, 2, 5]), torch.randn(7, 2)
    torch.testing.assert_close(
        sparse_decode(values[filled], indices[filled], W_dec, starts), sparse_decode(values * filled, indices, W_dec)
    )


# ---- several processes


def of_ranks(on_ranks, ranks, x, weight, bias, k):
    """Dense codes of all ranks, one after another, and what each says of the least."""

    def work(rank):
        codes = linear_batch_topk(x.chunk(ranks)[rank], weight, bias, k)
        return codes.dense(), codes.least

    parts = on_ranks(work, ranks)
    return torch.cat([codes for codes, _ in parts]), torch.stack([least for _, least in parts])


@pytest.mark.parametrize("k", [1, 3, 11])
@pytest.mark.parametrize("seed", [0, 1])
def test_two_ranks_keep_what_one_process_keeps_of_both_batches_even_among_equals(on_ranks, k, seed):
    x, weight, bias = whole_numbers(20, 4, 12, seed)
    codes, least = of_ranks(on_ranks, 2, x, weight, bias, k)
    whole = linear_batch_topk(x, weight, bias, k)
    assert torch.equal(codes, whole.dense())
    assert torch.equal(least, whole.least.expand(2))


@pytest.mark.parametrize("large", [0, 2, 4])
def test_one_rank_of_five_may_keep_nearly_all_which_is_more_than_it_tells_at_first(on_ranks, large):
    x, weight, bias = whole_numbers(20, 4, 48)
    x[4 * large : 4 * large + 4] *= 10
    codes, least = of_ranks(on_ranks, 5, x, weight, bias, 4)
    whole = linear_batch_topk(x, weight, bias, 4)
    assert torch.equal(codes, whole.dense())
    assert torch.equal(least, whole.least.expand(5))
    assert (codes.chunk(5)[large] > 0).sum() > 2 * 4 * 4


def test_equal_values_everywhere_are_those_of_the_first_rank(on_ranks):
    codes, _ = of_ranks(on_ranks, 3, torch.ones(6, 2), torch.ones(40, 2), torch.zeros(40), 3)
    assert torch.equal(codes.flatten().nonzero().squeeze(1), torch.arange(18))


def test_two_ranks_with_fewer_positive_values_than_they_may_keep(on_ranks):
    x, weight, bias = whole_numbers(10, 3, 16)
    codes, least = of_ranks(on_ranks, 2, x, weight, bias - 2, 15)
    whole = linear_batch_topk(x, weight, bias - 2, 15)
    assert 0 < len(whole.values) < 150
    assert torch.equal(codes, whole.dense())
    assert torch.equal(least, whole.least.expand(2))


def test_a_rank_whose_memory_runs_out_does_not_leave_the_other_waiting(on_ranks, monkeypatch):
    x, weight, bias = uneven(10)
    candidates = batch_topk._candidates

    def work(rank):
        def runs_out(*arguments):
            if rank == 1:
                torch.empty(TOO_MUCH, dtype=torch.uint8)
            return candidates(*arguments)

        monkeypatch.setattr(batch_topk, "_candidates", runs_out)
        try:
            linear_batch_topk(x.chunk(2)[rank], weight, bias, 4)
        except RuntimeError as error:
            return str(error)
        return "went on"

    other, failed = on_ranks(work)
    assert other == "went on"
    assert "memory" in failed
