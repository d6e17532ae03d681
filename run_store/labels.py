"""What a person adds to a run: labels.json beside its record, since only the process at work may write the record."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from run_store.atomic import write_json
from run_store.errors import UserError
from run_store.layout import LABELS_NAME

LONGEST_TAG = 100


@dataclass(frozen=True)
class Labels:
    """Tags, each once and in the order given, and a note."""

    tags: tuple[str, ...] = ()
    note: str = ""


def read_labels(folder: str | os.PathLike[str]) -> Labels:
    """The labels of the run in `folder`; none where the file is missing or damaged: no run is lost by its labels."""
    try:
        content = json.loads(Path(folder, LABELS_NAME).read_text(encoding="utf-8"))
        return Labels(tuple(str(tag) for tag in content["tags"]), str(content["note"]))
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return Labels()


def write_labels(folder: str | os.PathLike[str], labels: Labels) -> None:
    """Stores them in place of those that were there.

    Raises:
        UserError: the folder cannot be written to.
    """
    write_json(Path(folder, LABELS_NAME), asdict(labels))


def check_tags(tags: Sequence[str]) -> tuple[str, ...]:
    """The tags, each once.

    Raises:
        UserError: one of them is empty, longer than 100 characters or more than one line.
    """
    for tag in tags:
        if not tag.strip() or not tag.isprintable() or len(tag) > LONGEST_TAG:
            raise UserError(f"tags has {tag!r}: a tag is one line of 1 to {LONGEST_TAG} characters")
    return tuple(dict.fromkeys(tags))
