"""What a new run may start from, and what validate and test measure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cli.run_settings import RunSettings
from run_store import UserError
from run_store.checkpoints import Found, damage, newest_valid, read_checkpoint
from run_store.layout import CHECKPOINTS_NAME, METADATA_NAME
from run_store.listing import find_runs, resolve_run
from run_store.modes import FoundPath, FoundVariant, Source
from run_store.record import read_record
from run_store.selection import candidate_of
from run_store.selection_cache import cached_best
from run_store.survey import survey_run

WEIGHTS = "model.safetensors"


@dataclass(frozen=True)
class FoundSource:
    """What the setting `run.source` leads to: at most one of the three."""

    run: FoundVariant | None = None
    best: FoundVariant | None = None
    path: FoundPath | None = None

    @property
    def checkpoint(self) -> Path | None:
        """The folder whose weights would be taken."""
        variant = self.run or self.best
        if variant is not None:
            return variant.checkpoint.folder if variant.checkpoint else None
        return self.path.folder if self.path is not None and self.path.exists else None


def find_source(settings: RunSettings) -> FoundSource:
    """Looks for what a new run is to start from.

    Raises:
        UserError: `run.path` may mean several runs, or the record of the one it means is damaged.
    """
    return _FIND[settings.source](settings)


def weights_sha256(checkpoint: Path | None) -> str | None:
    """What stands for a checkpoint's weights in a run's identity; None where there are none to take."""
    if checkpoint is None:
        return None
    try:
        return read_checkpoint(checkpoint).files[WEIGHTS].sha256
    except (UserError, KeyError):
        return None


def find_measured(settings: RunSettings, resume: str | None, spec: str) -> tuple[Path, Found]:
    """The run that validate and test measure, and its newest whole checkpoint.

    Args:
        settings: `path` names the run, or the checkpoint where `source` is path.
        resume: names it too, and goes first.
        spec: fingerprint of the settings, whose newest run is taken where none is named.

    Raises:
        UserError: there is no such run, or it has no checkpoint that can be used.
    """
    if settings.source == "path" and settings.path and not resume:
        return _of_a_path(Path(settings.path))
    if wanted := resume or settings.path:
        folder = _named(settings, wanted)
        return folder, newest_valid(folder / CHECKPOINTS_NAME)
    for run in find_runs(settings.folder, name=settings.name, spec=spec).runs:
        if list((run.folder / CHECKPOINTS_NAME).glob("step-*")):
            return run.folder, newest_valid(run.folder / CHECKPOINTS_NAME)
    raise UserError(
        f"there is no run of these settings in {settings.folder} to be measured: name one with --resume RUN_FOLDER"
    )


def _of_a_path(checkpoint: Path) -> tuple[Path, Found]:
    """A checkpoint that stands alone, such as an imported one, and the folder that measurements of it go to."""
    found = Found(read_checkpoint(checkpoint))
    beside = checkpoint.parent
    return beside.parent if beside.name == CHECKPOINTS_NAME else beside, found


def _named(settings: RunSettings, wanted: str) -> Path:
    # a folder of checkpoints alone is measured as well
    if (Path(wanted) / CHECKPOINTS_NAME).is_dir() and not (Path(wanted) / METADATA_NAME).exists():
        return Path(wanted)
    return resolve_run(settings.folder, wanted).folder


def _nothing(settings: RunSettings) -> FoundSource:
    return FoundSource()


def _a_run(settings: RunSettings) -> FoundSource:
    if settings.path is None:
        return FoundSource()
    return FoundSource(run=survey_run(resolve_run(settings.folder, settings.path).folder, as_source=True))


def _the_best(settings: RunSettings) -> FoundSource:
    runs = {run.record.id: run.folder for run in find_runs(settings.folder, name=settings.name, status="complete").runs}
    if not runs:
        return FoundSource()
    candidates = [candidate_of(read_record(folder)) for folder in runs.values()]
    best = cached_best(Path(settings.folder, settings.name, "selections"), candidates, settings.criterion).best
    return FoundSource() if best is None else FoundSource(best=survey_run(runs[best], as_source=True))


def _a_path(settings: RunSettings) -> FoundSource:
    if settings.path is None:
        return FoundSource()
    folder = Path(settings.path)
    exists = folder.is_dir()
    problem = damage(folder) if exists and settings.validate_source else None
    return FoundSource(path=FoundPath(folder, exists, problem and f"is damaged ({problem})"))


_FIND: dict[Source, Callable[[RunSettings], FoundSource]] = {
    "scratch": _nothing,
    "run": _a_run,
    "best": _the_best,
    "path": _a_path,
}
