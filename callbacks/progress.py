"""The progress bar of a training: how fast, how good, how sparse, how alive."""

from __future__ import annotations

import time
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import TQDMProgressBar

SHOWN = {
    "tokens/s": "{:,.0f}",
    "train/fvu": "{:.4f}",
    "train/l0": "{:.1f}",
    "train/dead": "{:.2%}",
}


class TrainingProgress(TQDMProgressBar):
    """Shows tokens/s, FVU, L0 and the share of dead latents, and logs tokens/s.

    tokens/s counts the tokens of every rank over the wall time since the last showing, validation and checkpoints left
    out.

    Args:
        refresh_rate: batches between two showings.
    """

    def __init__(self, refresh_rate: int = 10) -> None:
        super().__init__(refresh_rate=refresh_rate)
        self._started: float | None = None
        self._tokens = 0
        self._rate = 0.0

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        if self._started is None:
            self._started, self._tokens = time.perf_counter(), 0

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._tokens += batch.rows.shape[0] * trainer.world_size
        if (batch_idx + 1) % self.refresh_rate == 0 and self._started is not None:
            self._rate = self._tokens / (time.perf_counter() - self._started)
            self._started = None
            pl_module.log("train/tokens_per_second", self._rate)
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._started = None
        super().on_validation_start(trainer, pl_module)

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, str]:  # type: ignore[override]
        """What stands behind the bar, formatted."""
        values = {"tokens/s": self._rate, **trainer.progress_bar_metrics}
        # a number that stays a number would be reformatted by tqdm
        return {
            name.removeprefix("train/"): form.format(float(values[name]))
            for name, form in SHOWN.items()
            if name in values
        }
