"""The checkpoint that `--resume` continues from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jsonargparse.typing import PositiveInt
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint


class LastCheckpoint(Checkpoint):
    """Saves the complete state to RUN_FOLDER/checkpoints/last.ckpt every so many optimiser steps and at the end of
    every epoch.

    One file, replaced atomically: whenever the run is killed, a whole checkpoint is there. Lightning's ModelCheckpoint
    saves either by steps or by epochs, so that a run which ends between two multiples of its steps loses its last
    weights.

    Args:
        every_n_steps: optimiser steps between two saves.
    """

    def __init__(self, every_n_steps: PositiveInt = 100) -> None:
        self.every_n_steps = every_n_steps
        self._saved_step = 0

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """Saves after a step that is due; the last of an epoch is left to the epoch's end, after the validation."""
        due = trainer.global_step % self.every_n_steps == 0 and trainer.global_step != self._saved_step
        if due and not trainer.is_last_batch:
            self._save(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._save(trainer)

    def _save(self, trainer: Trainer) -> None:
        if trainer.log_dir is not None:
            trainer.save_checkpoint(Path(trainer.log_dir) / "checkpoints" / "last.ckpt")
            self._saved_step = trainer.global_step
