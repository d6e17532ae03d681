"""An optimiser's settings, tried before there is anything to optimise."""

from __future__ import annotations

import torch
from lightning.pytorch.cli import OptimizerCallable

from run_store import UserError


def check_optimizer(make_optimizer: OptimizerCallable) -> None:
    """Makes the optimiser for one weight.

    Raises:
        UserError: it refuses its settings, or its learning rate is not above 0.
    """
    try:
        optimizer = make_optimizer([torch.nn.Parameter(torch.zeros(1))])
    except ValueError as error:
        raise UserError(f"model.optimizer cannot be made: {error}") from error
    rate = optimizer.param_groups[0]["lr"]
    if not rate > 0:
        raise UserError(f"model.optimizer.lr is {rate}: it must be above 0")
