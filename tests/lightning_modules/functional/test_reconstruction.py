import pytest
import torch

from lightning_modules.functional import (
    Spread,
    fraction_of_variance_unexplained,
    geometric_median,
    missed,
    squared_error,
)


def test_fvu_is_zero_for_the_input_and_one_for_its_mean():
    x = torch.randn(40, 6)
    mean = x.mean(dim=0)
    variance = squared_error(x, mean)
    assert fraction_of_variance_unexplained(x, x, variance) == 0
    torch.testing.assert_close(fraction_of_variance_unexplained(x, mean.expand_as(x), variance), torch.tensor(1.0))


def test_fvu_does_not_depend_on_the_scale():
    x, reconstruction = torch.randn(40, 6), torch.randn(40, 6)
    mean = x.mean(dim=0)
    scaled = fraction_of_variance_unexplained(7 * x, 7 * reconstruction, squared_error(7 * x, 7 * mean))
    torch.testing.assert_close(scaled, fraction_of_variance_unexplained(x, reconstruction, squared_error(x, mean)))


def test_fvu_of_parts_adds_up_to_that_of_the_whole():
    x, reconstruction = torch.randn(40, 6), torch.randn(40, 6)
    variance = squared_error(x, x.mean(dim=0))
    parts = zip(x.split(15), reconstruction.split(15), strict=True)
    added = sum(fraction_of_variance_unexplained(*part, variance) for part in parts)
    torch.testing.assert_close(added, fraction_of_variance_unexplained(x, reconstruction, variance))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_is_missed_is_the_error_and_its_square_has_the_gradient_of_autograd(dtype):
    x = torch.randn(70, 6, dtype=dtype)
    ours, theirs = (torch.randn(70, 6, dtype=dtype).requires_grad_() for _ in range(2))
    theirs.data.copy_(ours.data)
    lost, expected = missed(x, ours), (x - theirs).square().sum()
    assert torch.equal(lost.error, x - ours.detach())
    assert not lost.error.requires_grad
    torch.testing.assert_close(lost.squared, expected)
    (3 * lost.squared).backward()
    (3 * expected).backward()
    torch.testing.assert_close(ours.grad, theirs.grad)


@pytest.mark.parametrize("sizes", [[40], [20, 20], [39, 1], [1, 2, 37], [13, 13, 13, 1]])
def test_the_spread_of_parts_merges_into_that_of_the_whole_even_far_from_zero(sizes):
    x = torch.randn(40, 6, dtype=torch.float64) + 1e6
    merged, *others = [Spread.of(part) for part in x.split(sizes)]
    for other in others:
        merged = merged.merged(other)
    whole = Spread.of(x)
    assert merged.rows == 40
    torch.testing.assert_close(merged.mean, whole.mean, rtol=1e-14, atol=0)
    torch.testing.assert_close(merged.squares, whole.squares, rtol=1e-8, atol=0)


def test_geometric_median_minimises_the_summed_distance():
    torch.manual_seed(0)
    x = torch.randn(101, 4, dtype=torch.float64)
    x[0] = 1e6  # an outlier that drags the mean away
    median = geometric_median(x)

    def distance(point):
        return torch.linalg.vector_norm(x - point, dim=1).sum()

    assert torch.linalg.vector_norm(median) < 1
    for _ in range(20):
        assert distance(median) <= distance(median + 1e-2 * torch.randn(4, dtype=torch.float64))


def test_geometric_median_of_a_line_is_the_median():
    x = torch.tensor([[0.0], [1.0], [2.0], [3.0], [100.0]], dtype=torch.float64)
    torch.testing.assert_close(
        geometric_median(x, iterations=2000), torch.tensor([2.0], dtype=torch.float64), atol=1e-3, rtol=0
    )
