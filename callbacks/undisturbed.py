"""Looking at a model without a trace in its training."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from callbacks.random_states import collect, restore


@contextmanager
def undisturbed(module: nn.Module) -> Iterator[None]:
    """In evaluation mode and without gradients inside the block; behind it every part of the module is in the mode, and
    every generator of random numbers at the place, that it had before.
    """
    modes = [(part, part.training) for part in module.modules()]
    states = collect()
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for part, training in modes:
            part.training = training
        restore(states)
