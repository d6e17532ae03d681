import pytest
import torch
from torch.nn.functional import linear

from lightning_modules.functional.onednn import has_onednn, onednn_linear, runs_on_onednn

needs_onednn = pytest.mark.skipif(not has_onednn(), reason="this torch was built without oneDNN")


@needs_onednn
@pytest.mark.parametrize("shape", [(5, 7, 24), (1, 24), (24,), (3, 1, 24)])
@pytest.mark.parametrize(("outputs", "bias"), [(40, True), (1, True), (24, False)])
def test_values_and_gradients_are_those_of_the_same_layer_in_float64(shape, outputs, bias):
    x, weight = torch.randn(shape), torch.randn(outputs, 24)
    inputs = [x, weight, torch.randn(outputs)] if bias else [x, weight]
    single, double = (
        [part.to(dtype, copy=True).requires_grad_() for part in inputs] for dtype in (torch.float32, torch.float64)
    )
    y = onednn_linear(*single) if bias else onednn_linear(*single, None)
    exact = linear(*double)
    torch.testing.assert_close(y.double(), exact, rtol=1e-5, atol=1e-5)
    grad = torch.randn(y.shape)
    y.backward(grad)
    exact.backward(grad.double())
    for mine, true in zip(single, double, strict=True):
        torch.testing.assert_close(mine.grad.double(), true.grad, rtol=1e-5, atol=1e-5)


@needs_onednn
@pytest.mark.parametrize("needed", [(True, False, False), (False, True, False), (False, False, True)])
def test_only_the_gradients_that_are_needed_are_made(needed):
    inputs = [
        torch.randn(size).requires_grad_(wanted) for size, wanted in zip([(6, 4), (3, 4), 3], needed, strict=True)
    ]
    onednn_linear(*inputs).square().sum().backward()
    assert [part.grad is not None for part in inputs] == list(needed)


@needs_onednn
def test_strided_inputs_and_gradients():
    x, weight = torch.randn(4, 6).t().requires_grad_(), torch.randn(5, 4, requires_grad=True)
    y = onednn_linear(x, weight, None)
    torch.testing.assert_close(y, linear(x, weight))
    y.sum().backward()  # an expanded gradient, of stride 0
    torch.testing.assert_close(x.grad, weight.sum(dim=0).expand(6, 4))
    torch.testing.assert_close(weight.grad, x.sum(dim=0).expand(5, 4))


def test_what_it_cannot_take_it_does_not_get():
    x, weight = torch.randn(2, 3), torch.randn(4, 3)
    assert runs_on_onednn(x, weight)
    assert not runs_on_onednn(x.double(), weight.double())
    assert not runs_on_onednn(x[:0], weight)
    assert not runs_on_onednn(x.to("meta"), weight)
    with torch.autocast("cpu", torch.bfloat16):
        assert not runs_on_onednn(x, weight)
