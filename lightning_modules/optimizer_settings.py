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


def refuse_beside_a_scaler(precision: object, non_finite: str, members: int) -> None:
    """Refuses what a precision cannot do whose GradScaler leaves steps out.

    Args:
        precision: of the Trainer, for messages.
        non_finite: what is done about a step that is not finite.
        members: how many autoencoders share the optimiser.

    Raises:
        UserError: naming both settings.
    """
    if non_finite != "stop":
        raise UserError(
            f"model.non_finite is {non_finite}, and trainer.precision {precision} leaves "
            "steps out by its own rule: set trainer.precision to bf16-mixed or model.non_finite to stop"
        )
    if members > 1:
        raise UserError(
            f"trainer.precision {precision} leaves a step out for all members when one of them needs it, and "
            "model.members has several: set trainer.precision to bf16-mixed"
        )
