"""Which run a Trainer's predictions belong to, and where they are stored."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import NamedTuple

from run_store.layout import METADATA_NAME
from run_store.predictions import RunEntry, entry_of, job_id, job_user_id, store_path, store_path_of
from run_store.predictions.records import utc_now
from run_store.record import read_record


class PredictionRun(NamedTuple):
    """A run as the store of predictions knows it."""

    path: Path
    """Of the store."""
    entry: RunEntry
    has_record: bool
    """Whether its folder says which run it is; otherwise its checkpoints must."""


def prediction_run(root: str, log_dir: str | None, known: str | None = None) -> PredictionRun:
    """The run whose record is in `root`, where the command line has put it; for a Trainer that is used as a library a
    run of its own, in a store of its own.

    Args:
        root: the Trainer's `default_root_dir`.
        log_dir: the Trainer's.
        known: the id of the run that is gone on with, where that has no record.

    Raises:
        UserError: the record is damaged.
    """
    folder = Path(root)
    if (folder / METADATA_NAME).exists():
        return PredictionRun(store_path_of(folder), entry_of(read_record(folder)), True)
    run = folder if log_dir is None else Path(log_dir)
    shown = run.relative_to(folder) if run.is_relative_to(folder) and run != folder else run
    name = run.resolve().name
    entry = RunEntry(known or uuid.uuid4().hex, name, shown.as_posix(), job_id(), job_user_id(), utc_now())
    return PredictionRun(store_path(folder), entry, False)
