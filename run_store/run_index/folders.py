"""Run folders, named by their place: relative to the folder of all runs, with slashes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from run_store.layout import IDENTITY_FOLDER, variant_folders, variant_number


def place_of(folder: str | os.PathLike[str]) -> tuple[Path, str] | None:
    """The folder of all runs and a run's place in it; None for a folder that is not where runs are."""
    folder = Path(folder)
    if variant_number(folder) is None or not IDENTITY_FOLDER.fullmatch(folder.parent.name):
        return None
    root = folder.parents[2]
    place = folder.relative_to(root).as_posix()
    return (root, place) if _is_text(place) else None


def identities_below(root: Path) -> Iterator[str]:
    """Places of the folders that may have runs in them: one look into `root` and one into each folder in it."""
    for name in filter(_is_text, _entries(root)):
        for identity in _entries(root / name):
            if IDENTITY_FOLDER.fullmatch(identity):
                yield f"{name}/{identity}"


def places_in(root: Path, identity: str) -> list[str]:
    """Places of the runs of one identity."""
    return [f"{identity}/{folder.name}" for folder in variant_folders(root / identity)]


def places_below(root: Path) -> Iterator[str]:
    """Places of all runs."""
    for identity in identities_below(root):
        yield from places_in(root, identity)


def _entries(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:  # a file, or a folder that is not for us
        return []


def _is_text(name: str) -> bool:
    """Whether UTF-8 can hold it, as it can every name that `check_name` lets a run have."""
    try:
        return bool(name.encode())
    except UnicodeEncodeError:
        return False
