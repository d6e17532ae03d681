import random

import numpy as np
import pytest
import torch
from torch import nn

from callbacks.undisturbed import undisturbed


def draws():
    return random.random(), float(np.random.random()), float(torch.rand(()))


@pytest.mark.parametrize("fails", [False, True])
def test_modes_and_random_numbers_are_as_before(fails):
    module = nn.Sequential(nn.Dropout(), nn.Sequential(nn.Linear(2, 2), nn.Dropout()))
    module[1].eval()
    modes = [part.training for part in module.modules()]
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    expected = draws()
    random.setstate(states[0])
    np.random.set_state(states[1])
    torch.set_rng_state(states[2])
    try:
        with undisturbed(module):
            assert not any(part.training for part in module.modules())
            assert not torch.is_grad_enabled()
            draws()
            if fails:
                raise ValueError
    except ValueError:
        assert fails
    assert [part.training for part in module.modules()] == modes
    assert torch.is_grad_enabled()
    assert draws() == expected
