"""Errors of nested prefixes against decoding each of them by itself."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_modules.functional import BatchCodes, prefix_errors, prefixes


def naive(f, W_dec, ends, target):
    return [(target - f[:, :end] @ W_dec[:end]).square().sum() for end in ends.tolist()]


def case(b, s, d, n, seed=0):
    generator = torch.Generator().manual_seed(seed)
    f = torch.rand(b, s, generator=generator, dtype=torch.float64)
    f = f * (torch.rand(b, s, generator=generator) < 0.3)
    W_dec, target = (torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in ((s, d), (b, d)))
    ends = torch.cat([torch.randint(1, s + 1, (n - 1,), generator=generator).sort().values, torch.tensor([s])])
    return f, W_dec, ends, target


@given(st.integers(1, 9), st.integers(1, 12), st.integers(1, 5), st.integers(1, 6), st.integers(0, 2**16))
@settings(max_examples=60)
def test_errors_and_gradients_equal_those_of_decoding_every_prefix_though_prefixes_may_be_equal(b, s, d, n, seed):
    f, W_dec, ends, target = case(b, s, d, n, seed)
    ours = [part.clone().requires_grad_() for part in (f, W_dec, target)]
    theirs = [part.clone().requires_grad_() for part in (f, W_dec, target)]
    total, errors = prefix_errors(BatchCodes.of(ours[0]), ours[1], ends, ours[2])
    expected = naive(theirs[0], theirs[1], ends, theirs[2])
    torch.testing.assert_close(errors, torch.stack(expected).detach())
    torch.testing.assert_close(total, sum(expected))
    (3 * total).backward()
    (3 * sum(expected)).backward()
    torch.testing.assert_close(ours[0].grad, theirs[0].grad * (f > 0))
    for mine, reference in zip(ours[1:], theirs[1:], strict=True):
        torch.testing.assert_close(mine.grad, reference.grad)


@pytest.mark.parametrize("elements", [1, 30, 10**6])
def test_rows_in_parts_give_the_same(elements, monkeypatch):
    f, W_dec, ends, target = case(11, 4, 2, 3)
    f[3:9] = 0
    monkeypatch.setattr(prefixes, "CPU_ELEMENTS", elements)
    ours = [part.clone().requires_grad_() for part in (f, W_dec, target)]
    total, errors = prefix_errors(BatchCodes.of(ours[0]), ours[1], ends, ours[2])
    monkeypatch.undo()
    whole = [part.clone().requires_grad_() for part in (f, W_dec, target)]
    expected, expected_errors = prefix_errors(BatchCodes.of(whole[0]), whole[1], ends, whole[2])
    torch.testing.assert_close(errors, expected_errors)
    for mine, reference in zip(torch.autograd.grad(total, ours), torch.autograd.grad(expected, whole), strict=True):
        assert reference.any()
        torch.testing.assert_close(mine, reference)


def test_gradcheck():
    f, W_dec, ends, target = case(4, 6, 3, 3)
    codes = BatchCodes.of(f)

    def total(values, W_dec, target):
        return prefix_errors(codes._replace(values=values), W_dec, ends, target)[0]

    assert torch.autograd.gradcheck(total, [part.requires_grad_() for part in (codes.values, W_dec, target)])


def test_a_batch_that_keeps_nothing_misses_all_of_the_target():
    _, W_dec, ends, target = case(4, 6, 3, 3)
    W_dec.requires_grad_()
    total, errors = prefix_errors(BatchCodes.of(torch.zeros(4, 6, dtype=torch.float64)), W_dec, ends, target)
    torch.testing.assert_close(errors, target.square().sum().expand(3))
    total.backward()
    assert not W_dec.grad.any()
