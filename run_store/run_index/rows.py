"""What the index holds of a run, and when that is out of date."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from run_store.layout import LABELS_NAME, METADATA_NAME

_JSON = ("metrics", "tags")


@dataclass(frozen=True)
class RunSummary:
    """What a run's folder says of it; empty where its record is missing or damaged.

    Attributes:
        id: "" for a damaged one.
        status: as the record says, whether or not a process is at work.
        parent_run, parent_checkpoint: where its first weights are from.
        metrics: the last value of each, which may be NaN or infinite.
        tags, note: what a person gave it.
    """

    id: str = ""
    name: str = ""
    status: str = ""
    model: str = ""
    dataset: str = ""
    created: str = ""
    ended: str | None = None
    parent_run: str | None = None
    parent_checkpoint: str | None = None
    step: int = 0
    metrics: Mapping[str, float] = field(default_factory=dict)
    tags: tuple[str, ...] = ()
    note: str = ""


@dataclass(frozen=True)
class IndexedRun:
    """A run as the index knows it.

    Attributes:
        place: its folder, relative to the folder of all runs.
        stamp: of the files that were read, see `stamp_of`.
    """

    place: str
    stamp: str
    summary: RunSummary


COLUMNS = ("place", "stamp", "changed", *(item.name for item in fields(RunSummary)))


def stamp_of(folder: Path) -> tuple[str, int]:
    """What tells the present content of a run's folder from a former one, without reading it, and when it was written
    (nanoseconds since 1970). The stamp is "" where there is no folder.
    """
    parts, changed = [], 0
    for name in (METADATA_NAME, LABELS_NAME):
        try:
            found = os.stat(folder / name)
        except OSError:
            parts.append("-")
        else:
            parts.append(f"{found.st_mtime_ns}.{found.st_size}.{found.st_ino}")
            changed = max(changed, found.st_mtime_ns)
    return ("" if parts[0] == "-" and not folder.is_dir() else " ".join(parts)), changed


def to_row(place: str, stamp: str, changed: int, summary: RunSummary) -> tuple[Any, ...]:
    """The values of COLUMNS."""
    content = {item.name: getattr(summary, item.name) for item in fields(summary)}
    # JSON has no NaN and no infinity; as text, float() reads them back
    finite = {name: value if math.isfinite(value) else str(value) for name, value in summary.metrics.items()}
    content |= {"metrics": json.dumps(finite), "tags": json.dumps(summary.tags, ensure_ascii=False)}
    return place, stamp, changed, *map(_storable, content.values())


def to_run(row: tuple[Any, ...]) -> IndexedRun:
    """The run of which `to_row` made a row."""
    content = dict(zip(COLUMNS, row, strict=True))
    place, stamp, _ = (content.pop(name) for name in COLUMNS[:3])
    content |= {name: json.loads(content[name]) for name in _JSON}
    content["metrics"] = {name: float(value) for name, value in content["metrics"].items()}
    content["tags"] = tuple(content["tags"])
    return IndexedRun(place, stamp, RunSummary(**content))


def _storable(value: Any) -> Any:
    """Text as UTF-8 can hold it: JSON may have lone surrogates in it."""
    return value.encode("utf-8", "replace").decode("utf-8") if isinstance(value, str) else value
