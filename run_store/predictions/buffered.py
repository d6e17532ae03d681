"""Writing predictions out of a training, which a failing store must not stop."""

from __future__ import annotations

import os
import sqlite3
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path

from run_store.errors import UserError
from run_store.predictions.records import Prediction, RunEntry
from run_store.predictions.rows import Row, to_row
from run_store.predictions.store import PredictionStore

BOUND = 10_000
_PATIENCE = 5.0


class BufferedPredictions:
    """Writes the predictions of one run, and keeps in memory those that cannot be written.

    What waits is tried again with the next ones and at the end. The store is opened for each writing and closed after
    it: a training holds no file open that a worker could inherit, and between two writings all stands in one file.
    The run is stored first each time, so no prediction is without its run.

    Args:
        path: of the store, see `store_path_of`.
        run: which it writes for.
        tell: gets one sentence when something cannot be written for the first time.
        bound: how many predictions are kept at most. The oldest are dropped for newer ones.

    Attributes:
        failures: how often writing failed.
        dropped: predictions that are lost.
    """

    def __init__(
        self, path: str | os.PathLike[str], run: RunEntry, tell: Callable[[str], None], bound: int = BOUND
    ) -> None:
        self.path = Path(path)
        self.run = run
        self.failures = 0
        self.dropped = 0
        self._tell = tell
        self._bound = bound
        self._waiting: deque[Row] = deque()
        self._is_failing = False

    @property
    def waiting(self) -> int:
        """Predictions that are kept until they can be written."""
        return len(self._waiting)

    def write(self, predictions: Iterable[Prediction] = ()) -> None:
        """Writes them and all that wait. Whatever is the matter with the store, nothing is raised.

        Raises:
            TypeError: a prediction holds what JSON cannot; then none of them is kept.
        """
        self._waiting.extend([to_row(prediction) for prediction in predictions])
        # a training does not wait at every step for a store that somebody else keeps locked
        self._flush(0.0 if self._is_failing else _PATIENCE)

    def close(self) -> None:
        """Tries a last time to write what waits; what still cannot be written is lost."""
        if self._waiting:
            self._flush(_PATIENCE)
        self.dropped += len(self._waiting)
        self._waiting.clear()

    def outcome(self) -> str | None:
        """One sentence to end with; None when nothing failed."""
        if not self.failures:
            return None
        lost = f"{self.dropped} predictions are lost" if self.dropped else "no prediction is lost"
        waiting = f", {self.waiting} still wait" if self.waiting else ""
        return f"predictions could not be written to {self.path} {self.failures} times: {lost}{waiting}"

    def _flush(self, patience: float) -> None:
        try:
            with PredictionStore(self.path, patience=patience) as store:
                store.register(self.run)
                store.write_rows(self._waiting)
        except (UserError, sqlite3.Error, OSError) as error:
            self._keep(error)
        else:
            self._waiting.clear()
            self._is_failing = False

    def _keep(self, error: Exception) -> None:
        self.failures += 1
        self._is_failing = True
        while len(self._waiting) > self._bound:
            self._waiting.popleft()
            self.dropped += 1
        if self.failures == 1:
            self._tell(
                f"predictions cannot be written now ({error}); training goes on, and up to {self._bound} of them are "
                "kept and written when that is over"
            )
