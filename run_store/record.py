"""The record of a run: metadata.json, written whole at every change, events.jsonl, its history, and labels.json.

Every change is told to the index of all runs, see `run_store.run_index`.
"""

from __future__ import annotations

import json
import math
import os
import socket
import traceback
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

from run_store.atomic import write_json
from run_store.errors import UserError
from run_store.events import append_event, read_events
from run_store.fingerprints import Execution, Spec
from run_store.labels import Labels, check_tags, read_labels, write_labels
from run_store.layout import EVENTS_NAME, METADATA_NAME
from run_store.locks import one_at_a_time
from run_store.run_index import RunSummary, noted

VERSION = 1
_LABELS_LOCK = ".labels.lock"
_APART = ("folder", "labels")  # what metadata.json does not hold
Status = Literal["pending", "initialising", "running", "paused", "complete", "failed", "interrupted"]
STATUSES: tuple[Status, ...] = get_args(Status)

# What may follow what. A complete run starts again when its files turn out to be lost.
TRANSITIONS: dict[Status, frozenset[Status]] = {
    "pending": frozenset({"initialising", "failed", "interrupted"}),
    "initialising": frozenset({"running", "failed", "interrupted"}),
    "running": frozenset({"paused", "complete", "failed", "interrupted"}),
    "paused": frozenset({"initialising", "interrupted"}),
    "interrupted": frozenset({"initialising"}),
    "failed": frozenset({"initialising"}),
    "complete": frozenset({"initialising"}),
}
# A process is at work in these; without its lock it was killed.
LIVE: frozenset[Status] = frozenset({"initialising", "running"})


@dataclass(frozen=True)
class Progress:
    """How far a run has come, in optimiser steps and whole epochs; a maximum is None where there is none."""

    step: int = 0
    epoch: int = 0
    max_steps: int | None = None
    max_epochs: int | None = None


@dataclass(frozen=True)
class Lineage:
    """What a run was made from.

    Attributes:
        parent_run: id of the run whose weights it started from.
        parent_checkpoint: the folder of those weights.
        store: folder of the activation store that it reads.
        store_sha256: of the store's manifest, and with it of all its files.
    """

    parent_run: str | None = None
    parent_checkpoint: str | None = None
    store: str | None = None
    store_sha256: str | None = None


@dataclass(frozen=True)
class RunError:
    """Why a run failed: the exception's class, its words and where it came from."""

    kind: str
    message: str
    traceback: str


@dataclass(frozen=True)
class Attempt:
    """One process's work on a run, and the checkpoint that it went on from (None: from the start)."""

    number: int
    started: str
    pid: int
    host: str
    checkpoint: str | None = None
    ended: str | None = None
    status: Status | None = None


@dataclass(frozen=True)
class OutputFile:
    """A file that a complete run must have; `name` is relative to the run's folder."""

    name: str
    bytes: int
    sha256: str


@dataclass
class RunRecord:
    """What is known of a run. Each method that changes it writes metadata.json and appends to events.jsonl.

    One process at a time may change a record: the one that has the run's lock. Only `label` is for everybody. Times are
    ISO 8601 in UTC.

    Attributes:
        folder: of the run; not stored, so that a run may be moved.
        id: unique.
        model, dataset: short names to filter by.
        spec, execution: what went into the fingerprints, as plain JSON.
        metrics: the last value of each.
        outputs: the files that must be there once the run is complete, see `run_store.completion`.
        labels: tags and a note, as they were when the record was read.
    """

    folder: Path
    id: str
    name: str
    created: str
    spec_fingerprint: str
    exec_fingerprint: str
    status: Status = "pending"
    model: str = ""
    dataset: str = ""
    started: str | None = None
    ended: str | None = None
    spec: dict[str, Any] = field(default_factory=dict)
    execution: dict[str, Any] = field(default_factory=dict)
    git: dict[str, Any] = field(default_factory=dict)
    packages: dict[str, str] = field(default_factory=dict)
    hardware: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)
    lineage: Lineage = Lineage()
    progress: Progress = Progress()
    metrics: dict[str, float] = field(default_factory=dict)
    error: RunError | None = None
    attempts: list[Attempt] = field(default_factory=list)
    outputs: list[OutputFile] = field(default_factory=list)
    labels: Labels = field(default_factory=Labels)

    def write(self, event: str, **details: Any) -> None:
        """Stores the record and adds a line to its history, after a change of its fields.

        Raises:
            UserError: the disk is full; the record that was there before is untouched.
        """
        content = {item.name: getattr(self, item.name) for item in fields(self) if item.name not in _APART}
        content["metrics"] = _finite_json(self.metrics)
        with noted(self.folder, summary_of):
            write_json(self.folder / METADATA_NAME, {"version": VERSION, **_as_json(content)})
            self._emit(event, details)

    def label(self, tags: Sequence[str] | None = None, note: str | None = None) -> None:
        """Changes the run's tags or its note, each as a whole, also while another process works on the run.

        Raises:
            UserError: a tag cannot be one, or the folder cannot be written to.
        """
        checked = None if tags is None else check_tags(tags)
        with one_at_a_time(self.folder / _LABELS_LOCK), noted(self.folder, summary_of):
            known = read_labels(self.folder)
            self.labels = Labels(known.tags if checked is None else checked, known.note if note is None else note)
            write_labels(self.folder, self.labels)
            self._emit("labels", asdict(self.labels))

    def move_to(self, status: Status) -> None:
        """Changes the status.

        Raises:
            ValueError: that status cannot follow this one.
        """
        self._enter(status)
        self.write("status")

    def begin_attempt(self, checkpoint: str | os.PathLike[str] | None = None) -> Attempt:
        """A process starts on the run, from a checkpoint or from the beginning: the status becomes initialising.

        Call it with the run's lock: a status that says that a process is at work is then a killed process's.
        """
        if self.status in LIVE:
            self.move_to("interrupted")
        now = _now()
        origin = None if checkpoint is None else str(checkpoint)
        attempt = Attempt(len(self.attempts) + 1, now, os.getpid(), socket.gethostname(), origin)
        self._enter("initialising")
        self.attempts.append(attempt)
        self.started, self.ended, self.error = self.started or now, None, None
        self.write("attempt", attempt=attempt.number, checkpoint=origin)
        return attempt

    def report(self, progress: Progress, metrics: Mapping[str, float] | None = None) -> None:
        """Notes how far the run has come and the newest values of some metrics, which may be NaN or infinite."""
        self.progress = progress
        self.metrics = {**self.metrics, **{name: float(value) for name, value in (metrics or {}).items()}}
        self.write("progress", progress=asdict(progress), metrics=_finite_json(metrics or {}))

    def fail(self, error: BaseException) -> None:
        """Ends the attempt with an exception, whose traceback is kept."""
        self._enter("failed")
        told = "".join(traceback.format_exception(type(error), error, error.__traceback__))
        self.error = RunError(type(error).__qualname__, str(error), told)
        self.write("error", kind=self.error.kind, message=self.error.message)

    def complete(self, outputs: Iterable[OutputFile]) -> None:
        """Ends the run with the manifest of its files, which `run_store.completion.describe_outputs` makes."""
        self._enter("complete")
        self.outputs = list(outputs)
        self.write("status", outputs=[output.name for output in self.outputs])

    def history(self) -> list[dict[str, Any]]:
        """Everything that happened, oldest first: time, run, event, status and what else belongs to the event."""
        return read_events(self.folder / EVENTS_NAME)

    def _emit(self, event: str, details: Mapping[str, Any]) -> None:
        line = {"time": _now(), "run": self.id, "event": event, "status": self.status, **details}
        append_event(self.folder / EVENTS_NAME, line)

    def _enter(self, status: Status) -> None:
        if status not in TRANSITIONS[self.status]:
            raise ValueError(f"the run {self.folder} is {self.status} and cannot become {status}")
        self.status = status
        if status not in LIVE:
            self.ended = _now()
            if self.attempts and self.attempts[-1].ended is None:
                self.attempts[-1] = Attempt(**{**asdict(self.attempts[-1]), "ended": self.ended, "status": status})


def create_record(
    folder: str | os.PathLike[str],
    name: str,
    spec: Spec,
    execution: Execution,
    *,
    model: str = "",
    dataset: str = "",
    lineage: Lineage = Lineage(),
    git: Mapping[str, Any] | None = None,
    packages: Mapping[str, str] | None = None,
    hardware: Mapping[str, Any] | None = None,
    environment: Mapping[str, Any] | None = None,
) -> RunRecord:
    """Stores the record of a new run, which is pending, in its folder.

    Args:
        folder: of the run, claimed by `claim_variant`.
        name: what a person calls it.
        spec, execution: its identity.
        model, dataset: short names to filter by.
        lineage: what it is made from.
        git: what `code_state` found.
        packages, hardware, environment: see `run_store.environment`.

    Raises:
        ValueError: there is a record already.
    """
    folder = Path(folder)
    if (folder / METADATA_NAME).exists():
        raise ValueError(f"{folder} has a record already")
    record = RunRecord(
        folder=folder,
        id=uuid.uuid4().hex,
        name=name,
        created=_now(),
        spec_fingerprint=spec.fingerprint,
        exec_fingerprint=execution.fingerprint,
        model=model,
        dataset=dataset,
        spec=_as_json(asdict(spec)),
        execution=_as_json(asdict(execution)),
        lineage=lineage,
        git=dict(git or {}),
        packages=dict(packages or {}),
        hardware=dict(hardware or {}),
        environment=dict(environment or {}),
    )
    record.write("created")
    return record


def read_record(folder: str | os.PathLike[str]) -> RunRecord:
    """The record of the run in `folder`.

    Raises:
        UserError: there is none, it is damaged, or a newer release wrote it.
    """
    path = Path(folder) / METADATA_NAME
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        version = content.pop("version")
        if version == VERSION:
            return _parse(Path(folder), content)
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{folder} is no run, since it has no {METADATA_NAME}: check the path") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): mend its permissions") from error
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise UserError(f"{path} is damaged ({error}): put the original back or delete the run") from error
    raise UserError(f"{path} is of version {version!r} and this release reads version {VERSION}: update fulgurite")


def summary_of(folder: str | os.PathLike[str]) -> RunSummary | None:
    """What the index keeps of the run in `folder`: nothing but that it is there when its record cannot be read, and
    None where there is no folder.
    """
    if not Path(folder).is_dir():
        return None
    try:
        record = read_record(folder)
        return RunSummary(
            id=record.id,
            name=record.name,
            status=record.status,
            model=record.model,
            dataset=record.dataset,
            created=record.created,
            ended=record.ended,
            parent_run=record.lineage.parent_run,
            parent_checkpoint=record.lineage.parent_checkpoint,
            step=int(record.progress.step),
            metrics=record.metrics,
            tags=record.labels.tags,
            note=record.labels.note,
        )
    except (UserError, TypeError, ValueError):
        return RunSummary()


_Part = TypeVar("_Part")


def _parse(folder: Path, content: dict[str, Any]) -> RunRecord:
    if content["status"] not in STATUSES:
        raise ValueError(f"{content['status']!r} is no status")
    parts: dict[str, Any] = {
        "lineage": _part(Lineage, content["lineage"]),
        "progress": _part(Progress, content["progress"]),
        "metrics": {name: float(value) for name, value in content["metrics"].items()},
        "error": None if content["error"] is None else _part(RunError, content["error"]),
        "attempts": [_part(Attempt, attempt) for attempt in content["attempts"]],
        "outputs": [_part(OutputFile, output) for output in content["outputs"]],
        "labels": read_labels(folder),
    }
    record = RunRecord(folder=folder, **{**content, **parts})
    for name in ("id", "name", "created", "spec_fingerprint", "exec_fingerprint", "model", "dataset"):
        if not isinstance(getattr(record, name), str):
            raise ValueError(f"{name} is no text")
    return record


def _part(kind: type[_Part], content: Mapping[str, Any]) -> _Part:
    return kind(**content)


def _finite_json(metrics: Mapping[str, float]) -> dict[str, float | str]:
    """JSON has no NaN and no infinity; as text, float() reads them back."""
    return {name: value if math.isfinite(value) else str(float(value)) for name, value in metrics.items()}


def _as_json(content: Any) -> Any:
    """`content` as JSON can hold it, and UTF-8 too: names of files may be bytes that are no text."""
    text = json.dumps(content, default=_plain, ensure_ascii=False)
    return json.loads(text.encode("utf-8", "replace"))


def _plain(value: Any) -> Any:
    if isinstance(value, Progress | Lineage | RunError | Attempt | OutputFile):
        return asdict(value)
    if isinstance(value, set | frozenset):
        return sorted(value, key=str)
    return str(value)


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="microseconds")
