"""What is stored of a model's predictions on its fixed samples, and for whom."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from run_store.layout import IDENTITY_FOLDER
from run_store.record import RunRecord

STORE_NAME = "predictions.sqlite"


@dataclass(frozen=True)
class RunEntry:
    """A run that predictions belong to; it is stored before the first of them.

    Attributes:
        run_id: of its record.
        name: what a person calls it.
        folder: relative to the folder of all runs, where it lies below that.
        job_id: `JOB_ID`.
        user_id: `JOB_USER_ID`, the run's owner.
        created_at: UTC, ISO 8601 with microseconds.
    """

    run_id: str
    name: str
    folder: str
    job_id: str | None
    user_id: str | None
    created_at: str


@dataclass(frozen=True)
class Prediction:
    """What a model made of one sample at one moment. A run has one of each (member, step, sample_index).

    Attributes:
        member: of a sweep; "" where there are none.
        epoch: counted from 0, as Lightning does.
        step: optimiser steps done.
        sample_index: which of the run's samples.
        ground_truth: None where there is none.
        prediction: JSON. Its `kind` says what else it holds; an unknown kind is plain JSON. Numbers in it that are not
            finite are stored as null.
        scores: numbers by name. One that is not finite comes back as NaN.
        user_id, job_id: as in `RunEntry`.
        created_at: UTC, ISO 8601 with microseconds; set when it is written if empty.
    """

    run_id: str
    member: str
    epoch: int
    step: int
    sample_index: int
    prompt: str
    ground_truth: str | None
    prediction: Mapping[str, Any]
    scores: Mapping[str, float]
    user_id: str | None = None
    job_id: str | None = None
    created_at: str = ""


@dataclass(frozen=True)
class EpochSummary:
    """One epoch of one member of a run.

    Attributes:
        first_step, last_step: the optimiser steps at which samples were looked at.
        records: how many predictions there are.
        scores: the mean of each score over the records that have it; NaN where none of them is finite.
    """

    member: str
    epoch: int
    first_step: int
    last_step: int
    records: int
    scores: Mapping[str, float] = field(default_factory=dict)


def store_path(root: str | os.PathLike[str]) -> Path:
    """Where the predictions of all runs below `root`, the folder of all runs, lie."""
    return Path(root) / STORE_NAME


def store_path_of(run_folder: str | os.PathLike[str]) -> Path:
    """Where the predictions of one run lie: ROOT's for ROOT/NAME/spec-…_exec-…/vN, otherwise in the folder itself."""
    folder = Path(run_folder)
    return store_path(folder.parents[2] if IDENTITY_FOLDER.fullmatch(folder.parent.name) else folder)


def entry_of(record: RunRecord, environment: Mapping[str, str] = os.environ) -> RunEntry:
    """What the store keeps of a run.

    Args:
        record: of the run.
        environment: where `JOB_ID` and `JOB_USER_ID` stand.
    """
    root, folder = store_path_of(record.folder).parent, record.folder
    shown = folder.relative_to(root) if folder != root else folder
    job, user = job_id(environment), job_user_id(environment)
    return RunEntry(record.id, storable(record.name), storable(shown.as_posix()), job, user, utc_now())


def job_id(environment: Mapping[str, str] = os.environ) -> str | None:
    """`JOB_ID`; None when it is unset or empty."""
    return storable(environment.get("JOB_ID", "")) or None


def job_user_id(environment: Mapping[str, str] = os.environ) -> str | None:
    """`JOB_USER_ID`; None when it is unset or empty."""
    return storable(environment.get("JOB_USER_ID", "")) or None


def utc_now() -> str:
    """ISO 8601 with microseconds."""
    return datetime.now(timezone.utc).isoformat(timespec="microseconds")


def storable(text: str) -> str:
    """The text as UTF-8 can hold it: bytes of a file that are no text may stand in it as lone surrogates."""
    return text.encode("utf-8", "replace").decode("utf-8")
