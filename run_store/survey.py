"""Looking at what is on disk, for `decide`."""

from __future__ import annotations

import os
from pathlib import Path

from run_store.checkpoints import newest_valid
from run_store.completion import completion_of
from run_store.errors import UserError
from run_store.layout import CHECKPOINTS_NAME, METADATA_NAME, variant_folders
from run_store.listing import status_now
from run_store.locks import holder_of
from run_store.modes import FoundCheckpoint, FoundVariant
from run_store.record import read_record


def survey_variants(folder: str | os.PathLike[str]) -> tuple[FoundVariant, ...]:
    """Every variant in an identity's folder, lowest number first."""
    return tuple(survey_run(variant) for variant in variant_folders(folder))


def survey_run(folder: str | os.PathLike[str], as_source: bool = False) -> FoundVariant:
    """One run as it is now.

    Args:
        folder: of the run.
        as_source: look for its newest whole checkpoint even when it is complete or at work, since another run starts
            from it. Otherwise no checkpoint of such a run is read.
    """
    folder = Path(folder)
    holder = holder_of(folder)
    if not (folder / METADATA_NAME).exists():
        # claimed by a process that was killed before it could say what for: as good as never started
        return FoundVariant(folder, holder=holder, why_incomplete="it was killed before it began")
    try:
        record = read_record(folder)
    except UserError as error:
        return FoundVariant(folder, holder=holder, problem=str(error), why_incomplete=str(error))
    completion = completion_of(folder)
    status = status_now(record)
    untouched = (completion.complete or holder is not None) and not as_source
    checkpoint, damaged = (None, 0) if untouched else _newest_checkpoint(folder / CHECKPOINTS_NAME)
    return FoundVariant(
        folder=folder,
        status=status,
        complete=completion.complete,
        why_incomplete=completion.reason if record.status == "complete" else f"its status is {status}",
        holder=holder,
        checkpoint=checkpoint,
        damaged_checkpoints=damaged,
        final_step=record.progress.step,
    )


def _newest_checkpoint(folder: Path) -> tuple[FoundCheckpoint | None, int]:
    """The newest whole one, and how many are damaged among the newer ones (or among all, when none is whole)."""
    try:
        found = newest_valid(folder)
    except UserError:
        return None, sum(1 for _ in folder.glob("step-*"))
    newest = FoundCheckpoint(found.checkpoint.path, found.checkpoint.step, found.warning() or "")
    return newest, len(found.damaged)
