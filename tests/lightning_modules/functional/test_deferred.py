import gc
import weakref

import pytest
import torch

from lightning_modules.functional import deferred


class Doubled:
    def __init__(self, parameters):
        self.parameters, self.asked = parameters, []

    def gradients(self, grad):
        self.asked.append(float(grad))
        return [2 * grad * torch.ones_like(parameter) for parameter in self.parameters[:-1]] + [None]


def test_the_gradient_is_asked_for_once_with_what_the_value_is_scaled_by_and_then_let_go():
    parameters = [
        torch.zeros(2, requires_grad=True),
        torch.zeros((), requires_grad=True),
        torch.zeros(1, requires_grad=True),
    ]
    work = Doubled(parameters)
    loss = deferred(torch.tensor(5.0), work.gradients, parameters)
    assert float(loss.detach()) == 5
    (3 * loss).backward()
    assert work.asked == [3]
    assert parameters[0].grad.tolist() == [6, 6]
    assert float(parameters[1].grad) == 6
    assert parameters[2].grad is None
    gone = weakref.ref(work)
    del work
    gc.collect()
    assert gone() is None


def test_a_failure_on_the_way_adds_nothing_to_any_gradient():
    parameter = torch.zeros(2, requires_grad=True)

    def fails(grad):
        raise MemoryError("no memory")

    loss = deferred(torch.tensor(1.0), fails, [parameter])
    with pytest.raises(MemoryError):
        loss.backward()
    assert parameter.grad is None
