"""The settings under `run`: which run a command is about, and what a start does with what it finds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from jsonargparse.typing import PositiveFloat

from run_store.fingerprints import IdentityFlags
from run_store.modes import Mode, Source
from run_store.selection import Criterion, Direction


@dataclass
class RunSettings:
    """Which run it is, and what a start does with those that are there.

    Args:
        name: What the run is called, and its folder FOLDER/NAME.
        folder: The folder of all runs.
        environment: Where it runs: auto finds out. configs/environment/NAME.yaml has the settings that come with it;
            all others win over these.
        stores: The folder that stands for `stores` where a config names a store in it, such as stores/minilm-layer3;
            what is typed on the command line stays as it is.
        mode: resume_if_incomplete skips a finished run of these settings, goes on with an interrupted one and starts
            one where there is none; reuse_if_exists skips a finished one and starts a new one otherwise; force_new
            always starts a new one; continue_from_previous starts a new one from the weights of another.
        source: Where a new run takes its first weights from: nowhere, a run, the best run of FOLDER/NAME or a
            checkpoint.
        path: The run (folder, id or name) or the checkpoint's folder that source, validate and test mean.
        member: Of a sweep that is a source, the member whose weights are taken; by default each member of a new run
            takes those of the one of its own name.
        validate_source: Refuse a checkpoint given by its path unless every file in it has the hash that was recorded.
        best_metric: What the best run is chosen by.
        best_direction: Whether the lowest or the highest value is the best.
        backup: Where finished checkpoints and the run's record are copied to in the background: any URL that fsspec
            knows, such as file:///drive/runs or s3://bucket/runs.
        patience: Seconds within which all processes of a launch must have come.
        identity: What makes another run of the same settings.
    """

    name: str = "run"
    folder: str = "runs"
    environment: Literal["auto", "local", "colab", "kaggle", "azureml"] = "auto"
    stores: str = "stores"
    mode: Mode = "resume_if_incomplete"
    source: Source = "scratch"
    path: str | None = None
    member: str | None = None
    validate_source: bool = True
    best_metric: str = "val/fvu"
    best_direction: Direction = "min"
    backup: str | None = None
    patience: PositiveFloat = 300.0
    identity: IdentityFlags = field(default_factory=IdentityFlags)

    @property
    def criterion(self) -> Criterion:
        """How the best run is chosen."""
        return Criterion({self.best_metric: 1.0}, self.best_direction)
