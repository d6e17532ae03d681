"""Finding runs on disk, and deleting them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from run_store.atomic import flush_to_disk
from run_store.errors import UserError
from run_store.layout import IDENTITY_FOLDER, METADATA_NAME, variant_folders
from run_store.locks import RunLock, is_held
from run_store.record import LIVE, RunRecord, Status, read_record, summary_of
from run_store.run_index import noted


@dataclass(frozen=True)
class FoundRun:
    """A run and its status as of now: what its record calls running is interrupted when nobody is at work on it."""

    record: RunRecord
    status: Status

    @property
    def folder(self) -> Path:
        return self.record.folder


@dataclass(frozen=True)
class RunList:
    """A page of runs.

    Attributes:
        runs: newest first.
        total: how many there are on all pages.
        damaged: one sentence for each run whose record cannot be read, whatever was asked for.
    """

    runs: list[FoundRun]
    total: int
    damaged: list[str]


def find_runs(
    root: str | os.PathLike[str],
    *,
    name: str | None = None,
    status: Status | None = None,
    spec: str | None = None,
    execution: str | None = None,
    model: str | None = None,
    dataset: str | None = None,
    limit: int | None = None,
    offset: int = 0,
) -> RunList:
    """The runs below `root`, newest first.

    Args:
        root: the folder of all runs; none are found when it is missing.
        name, model, dataset: as they were given to the run.
        status: as of now.
        spec, execution: fingerprints, or their first digits.
        limit: runs on the page; None for all that are left.
        offset: runs to pass over first.

    Raises:
        ValueError: limit or offset is negative.
    """
    if offset < 0 or (limit is not None and limit < 0):
        raise ValueError(f"limit {limit} and offset {offset} count runs")
    found, damaged = [], []
    for folder in _run_folders(Path(root)):
        try:
            record = read_record(folder)
        except UserError as error:
            damaged.append(str(error))
            continue
        run = FoundRun(record, status_now(record))
        exact = ((name, record.name), (model, record.model), (dataset, record.dataset), (status, run.status))
        starts = ((spec, record.spec_fingerprint), (execution, record.exec_fingerprint))
        if all(asked in (None, there) for asked, there in exact) and all(
            there.startswith(asked or "") for asked, there in starts
        ):
            found.append(run)
    found.sort(key=lambda run: (run.record.created, run.record.id), reverse=True)
    return RunList(found[offset : None if limit is None else offset + limit], len(found), damaged)


def get_run(root: str | os.PathLike[str], run_id: str) -> FoundRun | None:
    """The run with this id; None when there is none."""
    return next((run for run in find_runs(root).runs if run.record.id == run_id), None)


def resolve_run(root: str | os.PathLike[str], wanted: str | os.PathLike[str]) -> FoundRun:
    """The run that a person means.

    Args:
        root: the folder of all runs.
        wanted: its folder, the end of its folder's path (`spec-…_exec-…/v2`, or a name that has one run), its id or the
            first digits of it. Of several, those are overlooked that ended before their first step: a mistake in a
            setting leaves such a run beside the one that has weights.

    Raises:
        UserError: no run or more than one is meant, or its record is damaged.
    """
    for folder in (Path(wanted), Path(root, wanted)):
        if (folder / METADATA_NAME).exists():
            record = read_record(folder)
            return FoundRun(record, status_now(record))
    text = Path(wanted).as_posix()
    meant = {run.folder: run for run in find_runs(root).runs if text and _is_meant(run, text)}
    begun = {folder: run for folder, run in meant.items() if not _ended_before_it_began(run)}
    return meant[the_one(list(begun or meant), text, root)]


def the_one(meant: Sequence[Path], text: str, root: str | os.PathLike[str]) -> Path:
    """The only folder among those that `text` may mean.

    Raises:
        UserError: there is none or more than one.
    """
    if not meant:
        raise UserError(f"there is no run {text} in {root}: give its folder or its id")
    if len(meant) > 1:
        folders = ", ".join(map(str, meant[:3])) + (", …" if len(meant) > 3 else "")
        raise UserError(f"{text} may be any of {len(meant)} runs ({folders}): give the folder of one")
    return meant[0]


def status_now(record: RunRecord) -> Status:
    """The status as of now: a process that is at work holds the run's lock, whatever a killed one has left written."""
    return "interrupted" if record.status in LIVE and not is_held(record.folder) else record.status


def delete_run(folder: str | os.PathLike[str]) -> None:
    """Deletes a run and all its files, be its record sound or not.

    It is first renamed, so that a kill in the middle leaves nothing that looks like a run; the next call for the same
    folder or a neighbour of it removes what is left.

    Raises:
        UserError: it is pending, paused or at work, or there is no such run.
    """
    folder = Path(folder)
    if folder not in variant_folders(folder.parent):
        raise UserError(f"there is no run {folder}: check the path")
    with RunLock(folder):
        _refuse_unfinished(folder)
        trash = folder.with_name(f"{folder.name}.{os.getpid()}.partial")
        with noted(folder, summary_of):
            folder.rename(trash)
        flush_to_disk(folder.parent)
        for leftover in folder.parent.glob("v*.*.partial"):
            shutil.rmtree(leftover, ignore_errors=True)


def _refuse_unfinished(folder: Path) -> None:
    try:
        status = read_record(folder).status
    except UserError:
        return  # nothing says that anybody needs it
    if status in ("pending", "paused"):
        raise UserError(f"the run {folder} is {status} and is not deleted: finish it or mark it interrupted first")


def _is_meant(run: FoundRun, text: str) -> bool:
    folder = f"/{run.folder.as_posix()}"
    return run.record.id.startswith(text) or folder.endswith(f"/{text}") or run.record.name == text


def _ended_before_it_began(run: FoundRun) -> bool:
    return run.record.progress.step == 0 and run.status in ("failed", "interrupted")


def _run_folders(root: Path) -> Iterator[Path]:
    for identity in sorted(root.glob("*/*")):
        if IDENTITY_FOLDER.fullmatch(identity.name):
            yield from variant_folders(identity)
