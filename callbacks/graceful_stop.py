"""Stopping a run so that nothing is lost: signals, and a request to pause."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch import Callback, LightningModule, Trainer

from callbacks.save_checkpoints import SaveCheckpoints
from run_store.pausing import is_pause_requested, withdraw_pause
from run_store.record import Status


class RunStopped(Exception):  # noqa: N818  (it is no error)
    """Somebody has asked the run to stop.

    Attributes:
        status: what the run is from now on.
        exit_code: of the process: 128 + the signal's number, 0 after a pause.
    """

    def __init__(self, status: Status, exit_code: int) -> None:
        super().__init__(status)
        self.status = status
        self.exit_code = exit_code


PAUSE = RunStopped("paused", 0)
ON_ANOTHER_RANK = RunStopped("interrupted", 128 + signal.SIGTERM)


class GracefulStop(Callback):
    """Ends a training after the step that is under way, and saves it, on SIGTERM, Ctrl-C, a request to pause
    (`run_store.pausing`) or the signal with which SLURM announces the end of a job's time, whose job is queued again.

    A second signal of the kind ends it at once; outside of the training loop the first does. All ranks stop after the
    same step.

    Args:
        folder: of the run, in which a request to pause is looked for at every step.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self._asked: RunStopped | None = None
        self._requeue_signal: int | None = None
        self._is_training = False
        self._signals: dict[int, RunStopped] = {
            number: RunStopped("interrupted", 128 + number) for number in (signal.SIGTERM, signal.SIGINT)
        }

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Answers signals inside the block. To be used in the main thread."""
        before = {number: signal.signal(number, self._on_signal) for number in self._signals}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        asked_before, self._asked = self._asked, self._signals[number]
        if not self._is_training or asked_before is self._asked:
            self._is_training = False
            raise self._asked
        if number == signal.SIGINT:
            print("\nstopping after this step; Ctrl-C once more stops at once", file=sys.stderr, flush=True)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Takes the place of Lightning's handlers, which stop without saving, or save in the middle of a step."""
        environment = trainer._accelerator_connector.cluster_environment
        if isinstance(environment, SLURMEnvironment) and environment.auto_requeue and environment.requeue_signal:
            self._requeue_signal = environment.requeue_signal
            self._signals[self._requeue_signal] = RunStopped("interrupted", 128 + self._requeue_signal)
        for number in self._signals:
            if signal.getsignal(number) != self._on_signal:
                signal.signal(number, self._on_signal)
        self._is_training = True

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        # the last step of an epoch is saved after its validation
        if not trainer.is_last_batch:
            self._stop_if_asked(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._stop_if_asked(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._is_training = False

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._is_training = False
        if self._requeue_signal and trainer.is_global_zero and exception is self._signals[self._requeue_signal]:
            requeue()

    def _stop_if_asked(self, trainer: Trainer) -> None:
        if self._asked is None and trainer.is_global_zero and is_pause_requested(self.folder):
            self._asked = PAUSE
        if not trainer.strategy.reduce_boolean_decision(self._asked is not None, all=False):
            return
        callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
        saver = next((callback for callback in callbacks if isinstance(callback, SaveCheckpoints)), None)
        is_whole = saver is None or saver.save_now(trainer) is not None
        if not is_whole and not trainer.is_last_batch:
            return  # inside an accumulation: after the step that it leads to
        if self._asked is PAUSE:
            withdraw_pause(self.folder)
        raise self._asked or ON_ANOTHER_RANK


def requeue() -> None:
    """Queues the SLURM job of this process once more; the same command resumes the run then."""
    environment = os.environ
    job = environment.get("SLURM_JOB_ID", "")
    if array := environment.get("SLURM_ARRAY_JOB_ID"):
        job = f"{array}_{environment.get('SLURM_ARRAY_TASK_ID', '')}"
    try:
        subprocess.run(["scontrol", "requeue", job], check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"warning: the job {job} could not be queued again ({error}): submit it once more", file=sys.stderr)
