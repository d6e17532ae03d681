"""A copy of a run somewhere else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from callbacks.checkpoint_io import AtomicCheckpointIO
from callbacks.mirror import Mirror

PATIENCE = 300.0


class Backup(Callback):
    """Copies finished checkpoints and the run's record to a URL in the background, and neither fails nor holds up the
    training (`Mirror`). It stands behind `RunRecordKeeper`, whose record it copies.

    Args:
        url: any that fsspec knows.
        run: the run's folder, with its record.
        patience: seconds that `finish` waits for copies at most.
    """

    def __init__(self, url: str, run: Path, patience: float = PATIENCE) -> None:
        self.mirror = Mirror(run, url)
        self.patience = patience
        self._seen: Path | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """What an attempt before could not copy any more."""
        self.mirror.offer()

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        # here every callback's save of the step before has been begun
        io = trainer.strategy.checkpoint_io
        newest = io.newest if isinstance(io, AtomicCheckpointIO) else None
        if newest != self._seen:
            self._seen = newest
            self.mirror.offer()

    def finish(self) -> None:
        """Waits for the copies that are left; to be called when the run's record is closed."""
        self.mirror.finish(self.patience)
