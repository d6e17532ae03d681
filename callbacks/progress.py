"""The progress bar of a training: how fast and how good."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import TQDMProgressBar

from datamodules.ranks import rank_of
from run_store import UserError

RATE = "{:,.0f}"
FORMS = {"train/fvu": "{:.4f}", "train/l0": "{:.1f}", "train/dead": "{:.2%}", "train/loss": "{:.4f}"}


@runtime_checkable
class Paced(Protocol):
    """What a LightningModule must tell of itself, for its progress to be shown."""

    paced_in: str
    """What its speed is counted in, such as tokens."""
    shown_behind_the_bar: Sequence[str]
    """The figures that it logs and that are worth a look at any time."""

    def pace_of(self, batch: Any) -> int:
        """How many of that a batch of one rank has."""


class TrainingProgress(TQDMProgressBar):
    """Shows the figures that a model wants shown, and its speed, which it logs too: of an autoencoder tokens/s, of an
    embedding model triplets/s. They are those of every rank over the wall time since the last showing, validation and
    checkpoints left out.

    Args:
        refresh_rate: batches between two showings.
    """

    def __init__(self, refresh_rate: int = 10) -> None:
        super().__init__(refresh_rate=refresh_rate)
        self._started: float | None = None
        self._done = 0
        self._rate = 0.0

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        if self._started is None:
            self._started, self._done = time.perf_counter(), 0

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._done += self._model(pl_module).pace_of(batch) * rank_of(trainer).world_size
        if (batch_idx + 1) % self.refresh_rate == 0 and self._started is not None:
            self._rate = self._done / (time.perf_counter() - self._started)
            self._started = None
            pl_module.log(f"train/{self._model(pl_module).paced_in}_per_second", self._rate)
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._started = None
        super().on_validation_start(trainer, pl_module)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Ends the bar's line: what is said about the exception has one of its own."""
        if self._train_progress_bar is not None:
            self._train_progress_bar.close()

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, str]:  # type: ignore[override]
        """What stands behind the bar, formatted."""
        model = self._model(pl_module)
        known = {name: float(value) for name, value in trainer.progress_bar_metrics.items()}
        # a number that stays a number would be reformatted by tqdm
        shown = {f"{model.paced_in}/s": RATE.format(self._rate)}
        for name in model.shown_behind_the_bar:
            if name in known:
                shown[name.removeprefix("train/")] = FORMS.get(name, "{:.4g}").format(known[name])
        return shown

    @staticmethod
    def _model(pl_module: LightningModule) -> Paced:
        if not isinstance(pl_module, Paced):
            raise UserError(
                f"callback TrainingProgress does not know what to show of {type(pl_module).__name__}: leave it out"
            )
        return pl_module
