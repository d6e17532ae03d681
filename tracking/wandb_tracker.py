"""Weights & Biases."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from jsonargparse.typing import PositiveFloat
from lightning.pytorch.loggers import Logger, WandbLogger

from tracking.tracked_run import TrackedRun
from tracking.tracker import Opened, Tracker


class WandbTracker(Tracker):
    """Writes for Weights & Biases, by default offline, into RUN_FOLDER/wandb: `wandb sync` sends that later. A run that
    is resumed or measured goes on there.

    Args:
        project: made when it is missing.
        entity: the account or team; by default that of whoever is logged in.
        offline: false sends while it trains.
        save_dir, patience: see `Tracker`.
    """

    tracker = "Weights & Biases"

    def __init__(
        self,
        project: str = "fulgurite",
        entity: str | None = None,
        offline: bool = True,
        save_dir: str = ".",
        patience: PositiveFloat = 60.0,
    ) -> None:
        super().__init__(save_dir, patience)
        self.project = project
        self.entity = entity
        self.offline = offline

    def open(self, run: TrackedRun, folder: Path) -> Opened:
        if find_spec("wandb") is None:
            raise ModuleNotFoundError("its package is missing: pip install 'fulgurite[wandb]'")
        import wandb

        logger = WandbLogger(
            name=run.label,
            save_dir=str(folder),
            id=run.id,
            project=self.project,
            entity=self.entity,
            offline=self.offline,
            config={"lineage": run.lineage},
            tags=[f"{name}-{run.lineage[name][:8]}" for name in ("spec", "exec") if name in run.lineage],
            # what is printed is the run's own affair
            settings=wandb.Settings(console="off", silent=True),
        )
        logger.experiment  # noqa: B018  (reaches the tracker)
        return Opened(logger, is_new=True)

    def close(self, logger: Logger, status: str) -> None:
        super().close(logger, status)
        assert isinstance(logger, WandbLogger)
        logger.experiment.finish(exit_code=0 if status == "success" else 1)
