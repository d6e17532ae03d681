"""Settings of the Trainer that it would take and make nothing of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from run_store import UserError

ENDLESS = -1


def refuse_impossible(trainer: Mapping[str, Any]) -> None:
    """Refuses a training without a step, a logging interval and a gradient clipping of 0 or less.

    Raises:
        UserError: naming the setting.
    """
    for name in ("max_steps", "max_epochs"):
        length = trainer.get(name)
        if length is not None and length != ENDLESS and length < 1:
            raise UserError(f"trainer.{name} is {length}: it must be above 0, or -1 for no end")
    for name, without in (("log_every_n_steps", "leave it out for 50"), ("gradient_clip_val", "null does not clip")):
        value = trainer.get(name)
        if value is not None and not value > 0:
            raise UserError(f"trainer.{name} is {value}: it must be above 0; {without}")
