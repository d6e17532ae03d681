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
from callbacks.vote import Vote
from run_store.pausing import is_pause_requested, withdraw_pause
from run_store.record import Status


class RunStopped(Exception):  # noqa: N818  (it is no error)
    """Somebody has asked the run to stop.

    Attributes:
        status: what the run is from now on.
        exit_code: of the process: 128 + the signal's number, 0 after a pause.
        agreed: whether all ranks stop with the same step.
    """

    agreed = False

    def __init__(self, status: Status, exit_code: int) -> None:
        super().__init__(status)
        self.status = status
        self.exit_code = exit_code


NOTHING = 0
PAUSE = 255
"""What is asked for, as a number; any other is a signal's. The largest one wins."""


class GracefulStop(Callback):
    """Ends a training after the step that is under way, and saves it, on SIGTERM, Ctrl-C, a request to pause
    (`run_store.pausing`) or the signal with which SLURM announces the end of a job's time, whose job is queued again.

    A second signal of the kind ends it at once; outside of the training loop the first does. All ranks stop after the
    same step, which of several is the one after that in which the first was asked.

    Args:
        folder: of the run, in which a request to pause is looked for at every step.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self._asked = NOTHING
        self._agreed = NOTHING
        self._requeue_signal: int | None = None
        self._is_training = False
        self._speaks = True
        self._signals: set[int] = {signal.SIGTERM, signal.SIGINT}
        self._vote = Vote()

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
        if number == self._agreed:
            self._agreed = NOTHING  # it comes late to this rank
            return
        asked_before, self._asked = self._asked, number
        if not self._is_training or asked_before == number:
            self._is_training = False
            raise _stopped(number)
        if number == signal.SIGINT and self._speaks:
            print("\nstopping after this step; Ctrl-C once more stops at once", file=sys.stderr, flush=True)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Takes the place of Lightning's handlers: they stop without saving, save in the middle of a step, or ask ranks
        that may be gone.
        """
        environment = trainer._accelerator_connector.cluster_environment
        if isinstance(environment, SLURMEnvironment) and environment.auto_requeue and environment.requeue_signal:
            self._requeue_signal = environment.requeue_signal
            self._signals.add(self._requeue_signal)
        self._speaks = trainer.is_global_zero
        self._take_signals()

    def _take_signals(self) -> None:
        for number in self._signals:
            if signal.getsignal(number) != self._on_signal:
                signal.signal(number, self._on_signal)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._take_signals()
        self._vote.start(trainer.world_size)
        # Lightning's own, at every batch, which a GPU is waited for
        trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None  # type: ignore[method-assign]
        self._is_training = True

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        self._vote.cast(self._wanted(trainer))

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        wanted = self._vote.outcome(self._wanted(trainer))
        # the last step of an epoch is saved after its validation
        if wanted and not trainer.is_last_batch:
            self._stop(trainer, wanted)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        own = self._wanted(trainer)
        self._vote.cast(own)
        if wanted := self._vote.outcome(own):
            self._stop(trainer, wanted)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._is_training = False

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._is_training = False
        if not isinstance(exception, RunStopped) or self._requeue_signal is None or not trainer.is_global_zero:
            return
        if exception.exit_code == 128 + self._requeue_signal:
            requeue()

    def _wanted(self, trainer: Trainer) -> int:
        if self._asked == NOTHING and trainer.is_global_zero and is_pause_requested(self.folder):
            self._asked = PAUSE
        return self._asked

    def _stop(self, trainer: Trainer, wanted: int) -> None:
        callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
        saver = next((callback for callback in callbacks if isinstance(callback, SaveCheckpoints)), None)
        is_whole = saver is None or saver.save_now(trainer) is not None
        if not is_whole and not trainer.is_last_batch:
            return  # inside an accumulation: after the step that it leads to
        if wanted == PAUSE and trainer.is_global_zero:
            withdraw_pause(self.folder)
        if self._asked != wanted:
            self._agreed = wanted
        stopped = _stopped(wanted)
        stopped.agreed = True
        raise stopped


def _stopped(wanted: int) -> RunStopped:
    return RunStopped("paused", 0) if wanted == PAUSE else RunStopped("interrupted", 128 + wanted)


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
