"""An optimiser's settings, tried before there is anything to optimise, and how its gradients are clipped."""

from __future__ import annotations

from collections.abc import Callable

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable, ReduceLROnPlateau
from lightning.pytorch.plugins import Precision
from lightning.pytorch.utilities import GradClipAlgorithmType
from lightning.pytorch.utilities.types import LRSchedulerConfigType, OptimizerLRSchedulerConfig
from torch.optim import Optimizer

from lightning_modules.schedules import WarmupDecay
from run_store import UserError


def check_optimizer(make_optimizer: OptimizerCallable, make_lr_scheduler: LRSchedulerCallable) -> None:
    """Makes the optimiser for one weight, and its schedule.

    Raises:
        UserError: one of them refuses its settings, or the learning rate is not above 0.
    """
    try:
        optimizer = make_optimizer([torch.nn.Parameter(torch.zeros(1))])
    except (ValueError, TypeError, RuntimeError) as error:
        raise UserError(f"model.optimizer cannot be made: {error}") from error
    rate = optimizer.param_groups[0]["lr"]
    if not rate > 0:
        raise UserError(f"model.optimizer.lr is {rate}: it must be above 0")
    try:
        make_lr_scheduler(optimizer)
    except (ValueError, TypeError, RuntimeError) as error:
        raise UserError(f"model.lr_scheduler cannot be made: {error}") from error


def scheduled(
    optimizer: Optimizer, make_lr_scheduler: LRSchedulerCallable, run_length: Callable[[], int]
) -> OptimizerLRSchedulerConfig:
    """An optimiser with its schedule, as `configure_optimizers` gives them: asked after every step, or after every
    epoch where it waits for a figure of the validation to stand still.

    Args:
        optimizer: the optimiser.
        make_lr_scheduler: makes its schedule.
        run_length: tells the optimiser steps of the whole run; only a schedule that depends on them asks.

    Raises:
        UserError: the schedule waits for a figure, and none is named.
    """
    scheduler = make_lr_scheduler(optimizer)
    if isinstance(scheduler, WarmupDecay):
        scheduler.set_run_length(run_length())
    if not isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}
    if not isinstance(scheduler, ReduceLROnPlateau):
        raise UserError(
            "model.lr_scheduler waits for a figure that it does not name: set its class_path to "
            "lightning.pytorch.cli.ReduceLROnPlateau, and monitor to a figure such as val/fvu"
        )
    plateau: LRSchedulerConfigType = {"scheduler": scheduler, "interval": "epoch", "monitor": scheduler.monitor}
    return {"optimizer": optimizer, "lr_scheduler": plateau}


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


def clip_gradients(trainer: Trainer, optimizer: Optimizer, largest: float | None, algorithm: str | None) -> None:
    """Shortens the gradients as Lightning does, those of a fused optimiser under bf16-mixed too: Lightning refuses
    these wherever there is autocast, and they are scaled only where there is a GradScaler.

    Args:
        trainer: whose precision they are of.
        optimizer: whose gradients they are.
        largest: as trainer.gradient_clip_val.
        algorithm: as trainer.gradient_clip_algorithm.

    Raises:
        UserError: a fused optimiser has scaled gradients.
    """
    if not largest:
        return
    plugin = trainer.precision_plugin
    if getattr(plugin, "scaler", None) is not None and getattr(optimizer, "_step_supports_amp_scaling", False):
        raise UserError(
            f"trainer.gradient_clip_val is {largest}, and under trainer.precision {trainer.precision} a fused "
            "optimiser has its gradients scaled until it steps: set model.optimizer.fused to false, trainer.precision "
            "to bf16-mixed, or trainer.gradient_clip_val to null"
        )
    Precision.clip_gradients(plugin, optimizer, largest, GradClipAlgorithmType(algorithm or "norm"))
