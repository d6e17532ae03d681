"""What every run prints for the person who started it: how to go on after an interruption, and at the end a table."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lightning.pytorch import Callback, LightningModule, Trainer

from callbacks.graceful_stop import RunStopped
from run_store.checkpoints import list_checkpoints
from run_store.layout import newest_config


class Closing(NamedTuple):
    """What is said of a model at the end."""

    title: str
    """What was trained; may be a table of its own."""
    figures: Sequence[tuple[str, str]]
    """Label and value of each line."""
    remarks: str = ""
    """What stands behind the table."""


class ClosingSummary(Callback):
    """Base of the summaries. The command to resume stands at the start because a killed run can print nothing. It names
    the saved config, so it is right whatever was typed.
    """

    folder = Path()
    """The run's."""
    _started = 0.0

    @abstractmethod
    def closing(self, trainer: Trainer, pl_module: Any) -> Closing:
        """What there is to say of the model; asked on the first rank once the training has ended."""

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._started = time.perf_counter()
        # asked here because all ranks must ask together
        self.folder = Path(str(trainer.log_dir))

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero and trainer.checkpoint_callback is not None:
            print(f"to resume after an interruption: {resume_command(self.folder)}", flush=True)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """After Ctrl-C and other requests to stop says what was kept and how to go on."""
        if isinstance(exception, KeyboardInterrupt | RunStopped) and trainer.is_global_zero and self._started:
            saved = list_checkpoints(self.folder / "checkpoints")
            status = exception.status if isinstance(exception, RunStopped) else "interrupted"
            step = f"\n{status} at step {trainer.global_step:,}"
            go_on = f"; to go on from the last checkpoint: {resume_command(self.folder)}" if saved else ""
            print(f"{step}{go_on}", flush=True)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero:
            print(self.table(trainer, pl_module), flush=True)

    def table(self, trainer: Trainer, pl_module: LightningModule) -> str:
        """The closing table as text, with the commands that come next."""
        seconds = time.perf_counter() - self._started
        closing = self.closing(trainer, pl_module)
        rows = [
            *closing.figures,
            ("training and validation", f"{seconds:.0f} s"),
            ("run folder", str(self.folder)),
        ]
        width = max(len(label) for label, _ in rows)
        body = "\n".join(f"  {label:<{width}}  {value}" for label, value in rows)
        hint = f"look at it:  tensorboard --logdir {self.folder}"
        if trainer.checkpoint_callback is not None:
            epochs = 2 * max(1, trainer.current_epoch)
            weights = f"--run.source run --run.path {self.folder} --trainer.max_epochs {epochs}"
            hint += f"\ntrain on:    python main.py fit --config {_config(self.folder)} {weights}"
        return f"\n{closing.title}\n{body}\n{hint}{closing.remarks}"


def resume_command(folder: Path) -> str:
    """The line that continues the run in `folder` from its last checkpoint."""
    return f"python main.py fit --config {_config(folder)} --resume {folder}"


def _config(folder: Path) -> Path:
    return newest_config(folder) or folder / "config.1.yaml"
