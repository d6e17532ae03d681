"""The sparse kernels against dense arithmetic that shares nothing with them."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_modules.functional import linear_topk, sparse_decode
from lightning_modules.functional.sparse import gathered_dot, latent_sums, rows_at_once


def naive_topk(x, weight, bias, k):
    """Dense codes of the k largest relu(z), one row at a time, differentiable through plain autograd."""
    z = x @ weight.T + bias
    codes = torch.zeros_like(z)
    for row in range(x.shape[0]):
        kept = sorted(range(z.shape[1]), key=lambda i: -z[row, i].item())[:k]
        mask = torch.zeros(z.shape[1], dtype=z.dtype)
        mask[kept] = 1
        codes = codes + torch.zeros_like(z).index_put((torch.tensor([row]),), (mask * z[row].relu()).unsqueeze(0))
    return codes


shapes = st.tuples(st.integers(1, 9), st.integers(1, 7), st.integers(1, 13)).flatmap(
    lambda bds: st.tuples(st.just(bds), st.integers(1, bds[2]), st.integers(0, 2**16))
)


@given(shapes)
@settings(max_examples=60, deadline=None)
def test_values_and_gradients_equal_the_dense_loop_on_any_shape(case):
    (b, d, s), k, seed = case
    generator = torch.Generator().manual_seed(seed)
    x, weight, decoder = (torch.randn(n, d, dtype=torch.float64, generator=generator) for n in (b, s, s))
    bias = torch.randn(s, dtype=torch.float64, generator=generator)
    upstream = torch.randn(b, d, dtype=torch.float64, generator=generator)
    ours = [t.clone().requires_grad_() for t in (weight, bias, decoder)]
    naive = [t.clone().requires_grad_() for t in (weight, bias, decoder)]

    values, indices = linear_topk(x, ours[0], ours[1], k)
    output = sparse_decode(values, indices, ours[2])
    expected = naive_topk(x, naive[0], naive[1], k) @ naive[2]

    torch.testing.assert_close(output, expected)
    output.backward(upstream)
    expected.backward(upstream)
    for mine, reference in zip(ours, naive, strict=True):
        torch.testing.assert_close(mine.grad, reference.grad)


def test_gradcheck_in_float64():
    torch.manual_seed(1)
    x = torch.randn(6, 5, dtype=torch.float64)
    weight, decoder = (torch.randn(11, 5, dtype=torch.float64, requires_grad=True) for _ in range(2))
    bias = torch.randn(11, dtype=torch.float64, requires_grad=True)

    def autoencode(weight, bias, decoder):
        return sparse_decode(*linear_topk(x, weight, bias, 3), decoder)

    assert torch.autograd.gradcheck(autoencode, (weight, bias, decoder))


def test_keeps_exactly_the_k_largest_and_never_a_negative():
    torch.manual_seed(2)
    x, weight = torch.randn(50, 8), torch.randn(40, 8)
    bias = torch.full((40,), -2.0)
    values, indices = linear_topk(x, weight, bias, 12)
    z = (x @ weight.T + bias).relu()
    torch.testing.assert_close(values.sort(descending=True).values, z.sort(descending=True).values[:, :12])
    assert (values >= 0).all()
    assert all(row.unique().numel() == 12 for row in indices)


def test_a_latent_that_does_not_fire_gets_no_gradient():
    x, weight = -torch.ones(3, 4), torch.ones(5, 4, requires_grad=True)
    bias = torch.zeros(5, requires_grad=True)
    values, _ = linear_topk(x, weight, bias, 2)
    values.sum().backward()
    assert not weight.grad.any()
    assert not bias.grad.any()


@pytest.mark.parametrize(("b", "k", "s", "d"), [(1, 1, 1, 1), (5, 3, 7, 2), (64, 8, 33, 17)])
def test_building_blocks_against_loops(b, k, s, d):
    torch.manual_seed(3)
    indices = torch.stack([torch.randperm(s)[:k] for _ in range(b)])
    weights, rows, table = torch.randn(b, k), torch.randn(b, d), torch.randn(s, d)
    dots, sums = torch.zeros(b, k), torch.zeros(s, d)
    for r in range(b):
        for i in range(k):
            dots[r, i] = rows[r] @ table[indices[r, i]]
            sums[indices[r, i]] += weights[r, i] * rows[r]
    torch.testing.assert_close(gathered_dot(rows, table, indices), dots, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(latent_sums(weights, indices, rows, s), sums, rtol=1e-5, atol=1e-5)


def test_nothing_of_size_batch_times_latents_outlives_the_selection():
    """Counts the bytes that autograd keeps: codes and inputs, not pre-activations."""
    b, d, s, k = 256, 16, 2048, 8
    x, weight = torch.randn(b, d), torch.randn(s, d, requires_grad=True)
    bias, decoder = torch.zeros(s, requires_grad=True), torch.randn(s, d, requires_grad=True)
    kept = {}

    def remember(tensor):
        kept[tensor.data_ptr()] = tensor.numel()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(remember, lambda tensor: tensor):
        output = sparse_decode(*linear_topk(x, weight, bias, k), decoder)
    assert max(kept.values()) == s * d
    assert max(kept.values()) < b * s
    assert torch.isfinite(output).all()


def test_gradient_is_the_same_for_any_number_of_threads():
    torch.manual_seed(4)
    x, weight = torch.randn(512, 24), torch.randn(96, 24)
    decoder = torch.randn(96, 24)
    before = torch.get_num_threads()
    gradients = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            mine = decoder.clone().requires_grad_()
            sparse_decode(*linear_topk(x, weight, torch.zeros(96), 6), mine).square().sum().backward()
            gradients.append(mine.grad)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*gradients)


@pytest.mark.parametrize("rows", [0, 1, 682, 683, 2048, 4096])
def test_rows_are_cut_into_parts_of_the_same_size(rows):
    parts = [len(part) for part in torch.empty(rows, 4).split(rows_at_once(torch.empty(rows, 4), 3072, torch.float32))]
    assert sum(parts) == rows
    assert max(parts) * 3072 * 4 <= 2**23
    assert max(parts) - min(parts) < len(parts)
