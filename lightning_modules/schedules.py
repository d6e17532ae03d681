"""Learning-rate schedules that know how long the run is."""

from __future__ import annotations

from jsonargparse.typing import NonNegativeFloat
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from lightning_modules.functional import trapezoid


class WarmupDecay(LRScheduler):
    """Linear warm-up, constant, linear decay to 0, counted in optimiser steps.

    The run's length is told by the LightningModule (`set_run_length`) and is not part of the state: a run that is
    resumed with more steps decays at its new end.

    Args:
        warmup: rise at the start; below 1 a share of the run, else a number of steps.
        decay: fall at the end, likewise.
    """

    def __init__(self, optimizer: Optimizer, warmup: NonNegativeFloat = 0.05, decay: NonNegativeFloat = 0.2) -> None:
        # plain floats: the command line gives a subclass, which a checkpoint that loads with weights_only=True cannot
        # hold
        self.warmup, self.decay = float(warmup), float(decay)
        self.run_length: int | None = None
        super().__init__(optimizer)

    def set_run_length(self, steps: int) -> None:
        """Tells how many optimiser steps the whole run has, and sets the rate of the step that comes next."""
        self.run_length = steps
        rates = self.get_lr()
        self._last_lr = list(rates)
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate

    def get_lr(self) -> list[float | Tensor]:
        """The rates of the step that comes next, one a parameter group; the full rates as long as the run's length is
        unknown.
        """
        factor = 1.0
        if self.run_length is not None:
            warmup, decay = (steps_of(share, self.run_length) for share in (self.warmup, self.decay))
            factor = trapezoid(self.last_epoch, self.run_length, warmup, decay)
        return [base * factor for base in self.base_lrs]

    def state_dict(self) -> dict[str, object]:
        state: dict[str, object] = super().state_dict()
        del state["run_length"]
        return state


def steps_of(share: float, run_length: int) -> int:
    """Below 1 a share of the run in steps, else the number of steps itself."""
    return round(share * run_length) if share < 1 else round(share)
