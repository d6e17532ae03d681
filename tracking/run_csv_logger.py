"""Curves as CSV in a run's folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from jsonargparse.typing import PositiveInt
from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter

FOLDER = "csv"


class RunCSVLogger(CSVLogger):
    """Writes RUN_FOLDER/csv/N/metrics.csv, of each attempt its own: Lightning's class deletes what an earlier one has
    written to the same folder.

    Args:
        save_dir, name, version: the run's folder is SAVE_DIR/NAME/VERSION; `fit` sets them.
        flush_logs_every_n_steps: rows are written after so many steps.
    """

    def __init__(
        self, save_dir: str = ".", name: str = "", version: str = "", flush_logs_every_n_steps: PositiveInt = 100
    ) -> None:
        super().__init__(save_dir, name, version, flush_logs_every_n_steps=flush_logs_every_n_steps)

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The writer of this attempt."""
        if self._experiment is None:
            folder = Path(self.log_dir, FOLDER)
            number = 1 + max((int(path.name) for path in folder.glob("*") if path.name.isdecimal()), default=0)
            self._experiment = ExperimentWriter(os.path.join(folder, str(number)))
        return self._experiment
