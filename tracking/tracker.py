"""Loggers that send to a tracker, which may be slow, missing or gone."""

from __future__ import annotations

import sys
from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from threading import Condition, Thread
from typing import Any, NamedTuple

from jsonargparse.typing import PositiveFloat
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from tracking.run_csv_logger import FOLDER, RunCSVLogger
from tracking.tracked_run import TrackedRun

Job = Callable[[Logger], None]


class Opened(NamedTuple):
    """One of Lightning's own loggers, which has reached its tracker."""

    logger: Logger
    is_new: bool
    """Whether the tracker has not heard of the run before."""


class Tracker(Logger):
    """Base of these loggers. One of Lightning's own does the work, on a thread that the training never waits for.

    The first thing that goes wrong, at the start or later, is told in one sentence; that entry and all that follow go
    to RUN_FOLDER/csv, and the training goes on.

    Args:
        save_dir: the run's folder; `fit` sets it.
        patience: seconds that the end waits for entries that are not sent yet.
    """

    tracker: str
    """What it is called."""

    def __init__(self, save_dir: str = ".", patience: PositiveFloat = 60.0) -> None:
        super().__init__()
        self._folder = Path(save_dir)
        self._patience = patience
        self._jobs: deque[Job | None] = deque()
        """The first one is under way; None ends the thread."""
        self._changed = Condition()
        self._thread: Thread | None = None
        self._is_given_up = False
        self._opened: Opened | None = None
        self._local: RunCSVLogger | None = None

    @abstractmethod
    def open(self, run: TrackedRun, folder: Path) -> Opened:
        """Reaches the tracker; called on the thread, once. Whatever it raises means that it cannot be reached.

        Args:
            run: what the tracker is told of it.
            folder: of the run.
        """

    def close(self, logger: Logger, status: str) -> None:
        """Ends the run there; `status` is success or failed, as Lightning says."""
        logger.finalize(status)

    # ---- as Lightning sees it

    @property
    def save_dir(self) -> str:
        return str(self._folder)

    @property
    def name(self) -> str:
        return self._folder.parent.name

    @property
    def version(self) -> str:
        return self._folder.name

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        entry = dict(metrics)
        self._submit(lambda logger: logger.log_metrics(entry, step))

    @rank_zero_only
    def log_hyperparams(self, params: Any, *_: Any, **__: Any) -> None:
        self._submit(lambda logger: logger.log_hyperparams(params) if self._is_new() else None)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Waits for what is not sent yet; what does not come through in time goes to local files."""
        if self._thread is None:
            return
        self._submit(lambda logger: self._end(logger, status))
        self._put(None)
        self._thread.join(self._patience)
        if self._thread.is_alive():
            self._give_up()
        self._thread = None

    # ---- behind it

    def _submit(self, job: Job) -> None:
        if self._is_given_up:
            self._write_locally(job)
            return
        self._put(job)
        if self._thread is None:
            # a daemon, so that a tracker that hangs does not keep the process alive
            self._thread = Thread(target=self._work, name=self.tracker, daemon=True)
            self._thread.start()

    def _put(self, job: Job | None) -> None:
        with self._changed:
            self._jobs.append(job)
            self._changed.notify()

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._jobs)
                job = self._jobs[0]
            error = None if job is None else self._carried_out(job)
            with self._changed:
                if self._is_given_up:
                    return  # whoever waited has taken all jobs over, this one too
                self._jobs.popleft()
                if error is not None and job is not None:
                    self._fall_back(error)
                    self._write_locally(job)
            if job is None:
                return

    def _carried_out(self, job: Job) -> Exception | None:
        try:
            job(self._local or self._reached())
        except Exception as error:  # whatever a client raises
            return error
        return None

    def _reached(self) -> Logger:
        if self._opened is None:
            self._opened = self.open(TrackedRun.of(self._folder), self._folder)
        return self._opened.logger

    def _is_new(self) -> bool:
        return self._opened is None or self._opened.is_new or self._local is not None

    def _end(self, logger: Logger, status: str) -> None:
        if logger is self._local:
            logger.finalize(status)
        else:
            self.close(logger, status)

    def _give_up(self) -> None:
        """Writes what the thread has not sent, the entry that it is at too."""
        with self._changed:
            self._is_given_up = True
            jobs = list(self._jobs)
            self._jobs.clear()
        self._fall_back(TimeoutError(f"it has not answered for {self._patience:.0f} s"))
        for job in jobs:
            if job is not None:
                self._write_locally(job)

    def _fall_back(self, error: Exception) -> None:
        if self._local is not None:
            return
        self._local = RunCSVLogger(str(self._folder))
        reason = " ".join(f"{error}".split())[:300] or type(error).__name__
        print(
            f"warning: {self.tracker} cannot be reached ({reason}): the curves go to {self._folder / FOLDER} from here",
            file=sys.stderr,
            flush=True,
        )

    def _write_locally(self, job: Job) -> None:
        assert self._local is not None
        try:
            job(self._local)
            self._local.save()
        except OSError as error:
            print(f"warning: {self._folder / FOLDER} cannot be written ({error.strerror})", file=sys.stderr, flush=True)
