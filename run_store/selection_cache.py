"""Remembering selections, so that a chain of jobs goes on with the run that its first job chose.

    selection-20261123T203000.123456Z-1a2b3c4d.json    one selection each, never written over
    latest.json                                        the newest of them
    index.json                                         their names by what was asked

The two summaries are rebuilt from the selections when they are damaged or behind.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from run_store.atomic import write_json
from run_store.fingerprints import fingerprint
from run_store.selection import Candidate, Criterion, Selection, select_best

_SELECTIONS = "selection-*.json"


def cached_best(folder: str | os.PathLike[str], candidates: Iterable[Candidate], criterion: Criterion) -> Selection:
    """The best candidate, remembered in `folder`: the same question over the same candidates is answered from there.

    Raises:
        UserError: the folder cannot be written to.
    """
    candidates = list(candidates)
    return recalled_best(folder, candidates, criterion) or worked_out_best(folder, candidates, criterion)


def recalled_best(
    folder: str | os.PathLike[str], candidates: Iterable[Candidate], criterion: Criterion
) -> Selection | None:
    """What `folder` remembers of the same question over the same candidates; None when it was not asked yet."""
    folder, question = Path(folder), _question(candidates, criterion)
    remembered = _read(folder / str(_index(folder).get(question)))
    return _selection(remembered) if remembered is not None and remembered["question"] == question else None


def worked_out_best(folder: str | os.PathLike[str], candidates: Iterable[Candidate], criterion: Criterion) -> Selection:
    """The best candidate, worked out whatever `folder` remembers, and remembered there from now on.

    Raises:
        UserError: the folder cannot be written to.
    """
    candidates = list(candidates)
    selection = select_best(candidates, criterion)
    remember(folder, selection, _question(candidates, criterion))
    return selection


def remember(folder: str | os.PathLike[str], selection: Selection, question: str) -> Path:
    """Stores a selection and brings the summaries up to date; returns the new file.

    The selection comes first: a kill before the summaries are written loses nothing.

    Raises:
        UserError: the folder cannot be written to.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    now = datetime.now(timezone.utc)
    path = folder / f"selection-{now:%Y%m%dT%H%M%S.%fZ}-{question[:8]}.json"
    content = {"time": now.isoformat(), "question": question, "selection": asdict(selection)}
    write_json(path, content)
    write_json(folder / "index.json", _index(folder))
    write_json(folder / "latest.json", content)
    return path


def latest(folder: str | os.PathLike[str]) -> Selection | None:
    """The newest selection; None when there is none."""
    for path in sorted(Path(folder).glob(_SELECTIONS), reverse=True):
        content = _read(path)
        if content is not None:
            return _selection(content)
    return None


def _question(candidates: Iterable[Candidate], criterion: Criterion) -> str:
    return fingerprint([asdict(criterion), sorted((asdict(candidate) for candidate in candidates), key=str)])


def _index(folder: Path) -> dict[str, str]:
    """Name of the newest selection by question: what index.json says, with what it lacks read from the selections."""
    index = _read_json(folder / "index.json")
    index = index if isinstance(index, dict) else {}
    for path in sorted(folder.glob(_SELECTIONS)):
        if path.name not in index.values():
            content = _read(path)
            if content is not None:
                index[content["question"]] = max(path.name, str(index.get(content["question"], "")))
    return index


def _selection(content: dict[str, Any]) -> Selection:
    return Selection(**content["selection"])


def _read(path: Path) -> dict[str, Any] | None:
    """The content of a selection's file; None when it is missing or damaged."""
    content = _read_json(path)
    try:
        _selection(content)
        return content if isinstance(content["question"], str) else None
    except (TypeError, KeyError):
        return None


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
