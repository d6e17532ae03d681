"""When a run saves its state."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from jsonargparse.typing import PositiveFloat, PositiveInt
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.strategies import Strategy
from lightning.pytorch.trainer.states import TrainerFn, TrainerStatus
from lightning.pytorch.utilities import rank_zero_warn

from callbacks.checkpoint_io import AtomicCheckpointIO, SaveOptions
from callbacks.vote import Vote
from lightning_modules.sharding import LatentParallel
from run_store import UserError
from run_store.checkpoints import add_metrics, checkpoint_path, sweep_leftovers

OF_VALIDATION = "/val/"
"""What the names of metrics begin with that belong to the weights they were measured on."""


class SaveCheckpoints(Checkpoint):
    """Saves the complete state to RUN_FOLDER/checkpoints/step-XXXXXXXX/ by a schedule, after every validation and at
    the end of every epoch, always between two optimiser steps.

    A manifest records the metrics as they stood, those of a validation only where it measured these very weights.

    Args:
        every_n_steps: optimiser steps between two saves; null saves by the other rules alone.
        every_n_minutes: minutes after a save at which the next one is due.
        at_steps: optimiser steps that are saved besides, such as 1, 10, 100 for a look at how training begins.
        asynchronous: training goes on from a copy of the state while the files are written.
    """

    def __init__(
        self,
        every_n_steps: PositiveInt | None = 100,
        every_n_minutes: PositiveFloat | None = None,
        at_steps: list[PositiveInt] | None = None,
        asynchronous: bool = False,
    ) -> None:
        self.every_n_steps = every_n_steps
        self.every_n_minutes = every_n_minutes
        self.at_steps = frozenset(at_steps or ())
        self.asynchronous = asynchronous
        self._saved_step = -1
        self._validated_step = -1
        self._step_before_batch = 0
        self._saved_at = 0.0
        self._late = Vote()
        self._is_late = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Sweeps what a kill inside a save has left.

        Raises:
            UserError: the Trainer would not write these checkpoints as they must be written.
        """
        if stage != TrainerFn.FITTING:
            return
        _io_of(trainer)
        strategy = type(trainer.strategy)
        if strategy is not LatentParallel and (
            strategy.save_checkpoint is not Strategy.save_checkpoint
            or strategy.load_checkpoint is not Strategy.load_checkpoint
        ):
            raise UserError(
                f"{strategy.__name__} writes checkpoints in its own way, which SaveCheckpoints cannot vouch for: "
                "set trainer.strategy to auto, ddp or LatentParallel"
            )
        folder = self.folder(trainer)
        if folder is not None and trainer.is_global_zero:
            sweep_leftovers(folder)

    def folder(self, trainer: Trainer) -> Path | None:
        """Where the checkpoints of this run stand; None when it has no folder. To be asked on every rank."""
        return None if trainer.log_dir is None else Path(trainer.log_dir) / "checkpoints"

    def save_now(self, trainer: Trainer) -> Path | None:
        """Saves the step that was just finished, unless it is saved, and returns when it is on the disk.

        For whoever is about to stop a run. To be called on every rank, from `on_train_batch_end` or a later hook, not
        from `on_train_batch_start`, when the next batch has been taken already.

        Returns:
            The checkpoint of this step; None inside a step, inside an accumulation and after an exception, when the
            state is not that of a whole step and the newest checkpoint is the one to go on from.

        Raises:
            UserError: it cannot be saved.
        """
        folder = self.folder(trainer)
        if folder is None or not self._is_whole(trainer):
            return None
        if trainer.global_step != self._saved_step:
            self._save(trainer)
        _io_of(trainer).drain()
        return checkpoint_path(folder, trainer.global_step)

    # ---- when

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._step_before_batch = trainer.global_step
        self._saved_at = time.monotonic()
        if self.every_n_minutes is not None:
            self._late.start(trainer.world_size)
        folder = self.folder(trainer)
        # a run that goes on from another folder's checkpoint has not saved this step yet
        is_saved = folder is not None and checkpoint_path(folder, trainer.global_step).is_dir()
        self._saved_step = trainer.global_step if is_saved else -1

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        self._step_before_batch = trainer.global_step
        if self.every_n_minutes is not None:
            self._late.cast(self._own_late())

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """Saves after a step that is due; the last of an epoch is left to the epoch's end, after the validation."""
        # ranks save together, and their clocks differ
        self._is_late = self.every_n_minutes is not None and bool(self._late.outcome(self._own_late()))
        if trainer.is_last_batch or not self._is_whole(trainer) or trainer.global_step == self._saved_step:
            return
        if self._is_due(trainer) or self._is_stopping(trainer):
            self._save(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Saves what was measured in mid-epoch, so that the best weights are among those on the disk."""
        if trainer.state.fn != TrainerFn.FITTING or trainer.sanity_checking:
            return
        self._validated_step = trainer.global_step
        if self._is_whole(trainer) and not trainer.is_last_batch:
            self._save_measured(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._save_measured(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        _io_of(trainer).drain()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Lets a save that is under way come to its end. What goes wrong there does not hide the exception."""
        if not isinstance(trainer.strategy.checkpoint_io, AtomicCheckpointIO):
            return
        try:
            trainer.strategy.checkpoint_io.drain()
        except Exception as error:
            rank_zero_warn(f"the last checkpoint could not be saved: {error}")

    def _is_whole(self, trainer: Trainer) -> bool:
        """Whether the batch that was last begun has ended with an optimiser step."""
        return trainer.state.status == TrainerStatus.RUNNING and trainer.global_step > self._step_before_batch

    def _is_due(self, trainer: Trainer) -> bool:
        step = trainer.global_step
        if step in self.at_steps or (self.every_n_steps is not None and step % self.every_n_steps == 0):
            return True
        return self._is_late

    def _own_late(self) -> int:
        return int(time.monotonic() - self._saved_at >= 60 * (self.every_n_minutes or 0.0))

    def _is_stopping(self, trainer: Trainer) -> bool:
        """Whether this is the last step though the epoch has more: saved at the epoch's end it would look finished, and
        a longer run could not go on in its middle.
        """
        if trainer.global_step == trainer.max_steps:
            return True
        enough = trainer.global_step >= (trainer.min_steps or 0) and trainer.current_epoch >= (trainer.min_epochs or 0)
        return trainer.should_stop and enough

    # ---- how

    def _save_measured(self, trainer: Trainer) -> None:
        """Saves this step with its metrics; when it is saved already, they are added to its manifest."""
        if trainer.global_step != self._saved_step:
            self._save(trainer)
            return
        folder = self.folder(trainer)
        _io_of(trainer).drain()
        if folder is not None and trainer.is_global_zero:
            path = checkpoint_path(folder, trainer.global_step)
            if path.is_dir():  # retention by hand may have taken it
                add_metrics(path, self._metrics(trainer))

    def _save(self, trainer: Trainer) -> None:
        folder = self.folder(trainer)
        if folder is None:
            return
        options = SaveOptions(self._metrics(trainer), self.asynchronous)
        path = checkpoint_path(folder, trainer.global_step)
        trainer.save_checkpoint(path, storage_options=options)
        self._saved_step = trainer.global_step
        self._saved_at = time.monotonic()

    def _metrics(self, trainer: Trainer) -> dict[str, float]:
        validated = self._validated_step == trainer.global_step
        # figures of a sweep's members have their name in front
        return {
            name: float(value)
            for name, value in trainer.callback_metrics.items()
            if validated or OF_VALIDATION not in f"/{name}"
        }


def _io_of(trainer: Trainer) -> AtomicCheckpointIO:
    io = trainer.strategy.checkpoint_io
    if not isinstance(io, AtomicCheckpointIO):
        raise UserError("callback SaveCheckpoints writes through AtomicCheckpointIO: give trainer.plugins one")
    return io
