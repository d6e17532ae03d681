"""Reading through the index, which is mended or made again first where that is needed, and writing into it."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from run_store.errors import UserError
from run_store.run_index.folders import identities_below, place_of
from run_store.run_index.index import INDEX_NAME, Read, RunIndex
from run_store.sqlite_files import DamagedFileError, OutdatedFileError, SqliteFileError

_WRITERS_PATIENCE = 2.0

_Answer = TypeVar("_Answer")


@contextmanager
def noted(folder: str | os.PathLike[str], read: Read) -> Iterator[None]:
    """Around every change of a run's folder: tells the index of all runs.

    Whatever is the matter with the index, nothing is raised: it can be made again, and a training cannot.

    Args:
        folder: of the run; nothing is told of one that does not lie where runs do.
        read: reads it.
    """
    placed = place_of(folder)
    index = None if placed is None else _opened(placed[0], read)
    if placed is None or index is None:
        yield
        return
    place, token = placed[1], None
    with index:
        with suppress(UserError, sqlite3.Error, OSError):
            token = index.announce(place)
        yield
        with suppress(UserError, sqlite3.Error, OSError):
            index.refresh([place], token)


def answered(
    root: str | os.PathLike[str],
    read: Read,
    ask: Callable[[RunIndex], _Answer],
    tell: Callable[[str], None] = lambda _: None,
    *,
    afresh: bool = False,
) -> _Answer:
    """Asks the index something.

    A damaged or outdated one is made again from the run folders. Where there can be none, since the folder may not be
    written or the file is of a newer release, every run folder is read for this one answer.

    Args:
        root: the folder of all runs.
        read: reads a run's folder.
        ask: gets the index, and may be called twice.
        tell: gets one sentence when every run folder has to be read.
        afresh: makes the index again first, whatever its state.
    """
    path = Path(root, INDEX_NAME)
    if not path.exists() and next(identities_below(Path(root)), None) is None:
        with RunIndex(root, read, in_memory=True) as index:
            return ask(index)  # a folder without runs gets no file
    for is_first in (True, False):
        try:
            with RunIndex(root, read) as index:
                if afresh:
                    index.rebuild()
                else:
                    index.catch_up()
                return ask(index)
        except (DamagedFileError, OutdatedFileError) as error:
            problem = str(error)
            if not (is_first and _discarded(path)):
                break
        except SqliteFileError as error:
            problem = str(error)
            break
    tell(f"every run folder is read, since {problem}")
    with RunIndex(root, read, in_memory=True) as index:
        index.rebuild()
        return ask(index)


def _opened(root: Path, read: Read) -> RunIndex | None:
    with suppress(UserError, sqlite3.Error, OSError):
        return RunIndex(root, read, patience=_WRITERS_PATIENCE)
    return None


def _discarded(path: Path) -> bool:
    """Removes an index with its journal, which must not be played back into the next one; whether it is gone."""
    try:
        for name in (f"{path.name}-journal", path.name):
            path.with_name(name).unlink(missing_ok=True)
    except OSError:
        return False
    return True
