"""A callback that brings one rank into trouble, for a config to name."""

from __future__ import annotations

import time
from typing import Any, Literal

from lightning.pytorch import Callback, Trainer

from run_store import UserError


class Trouble(Callback):
    """Args:
    rank: whose it is.
    step: after which it happens.
    kind: raise a bug's exception or a person's mistake, or go to sleep.
    """

    def __init__(self, rank: int, step: int, kind: Literal["bug", "mistake", "sleep"]) -> None:
        self.rank = rank
        self.step = step
        self.kind = kind

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if trainer.global_rank != self.rank or trainer.global_step != self.step:
            return
        if self.kind == "sleep":
            print("fell asleep", flush=True)
            time.sleep(600)
        raise KeyError("nobody has it") if self.kind == "bug" else UserError("this cannot work: set it otherwise")
