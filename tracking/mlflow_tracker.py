"""MLflow."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from jsonargparse.typing import PositiveFloat
from lightning.pytorch.loggers import MLFlowLogger

from tracking.tracked_run import TrackedRun
from tracking.tracker import Opened, Tracker

PREFIX = "fulgurite."
# MLflow would try for minutes; unless somebody has set them
_WAITING = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "20"}


class MLflowTracker(Tracker):
    """Sends metrics and settings to an MLflow server. A run that is resumed or measured goes on there.

    Args:
        experiment: made when it is missing.
        tracking_uri: of the server; by default MLFLOW_TRACKING_URI, else a database beside the runs,
            RUNS/mlflow.sqlite.
        save_dir, patience: see `Tracker`.
    """

    tracker = "MLflow"

    def __init__(
        self,
        experiment: str = "fulgurite",
        tracking_uri: str | None = None,
        save_dir: str = ".",
        patience: PositiveFloat = 60.0,
    ) -> None:
        super().__init__(save_dir, patience)
        self.experiment_name = experiment
        self.tracking_uri = tracking_uri

    def open(self, run: TrackedRun, folder: Path) -> Opened:
        if find_spec("mlflow") is None:
            raise ModuleNotFoundError("its package is missing: pip install 'fulgurite[mlflow]'")
        from mlflow.tracking import MlflowClient

        for name, value in _WAITING.items():
            os.environ.setdefault(name, value)
        uri = self.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or _beside_the_runs(folder)
        known = None if run.id is None else _known_run(MlflowClient(uri), self.experiment_name, run.id)
        tags = {f"{PREFIX}{name}": value for name, value in run.lineage.items()}
        logger = MLFlowLogger(
            self.experiment_name, run_name=run.label, tracking_uri=uri, tags=tags, run_id=known, log_model=False
        )
        client = logger.experiment
        if known is not None:
            client.update_run(known, "RUNNING")
            for name, value in tags.items():
                client.set_tag(known, name, value)
        return Opened(logger, is_new=known is None)


def _known_run(client: Any, experiment: str, run_id: str) -> str | None:
    """MLflow's id of a run of ours."""
    found = client.get_experiment_by_name(experiment)
    if found is None:
        return None
    runs = client.search_runs([found.experiment_id], f"tags.`{PREFIX}run` = '{run_id}'", max_results=1)
    return str(runs[0].info.run_id) if runs else None


def _beside_the_runs(folder: Path) -> str:
    return f"sqlite:///{folder.resolve().parents[2] / 'mlflow.sqlite'}"
