"""The index of all runs below one folder: ROOT/runs.sqlite, made from the run folders and made again at any time.

Whoever writes a run's record announces it here first, in a transaction of its own, so that one who is killed between
the record and the index leaves word of it. All rows are read from the folders within the transaction that writes them:
of two writers the later one has seen what both wrote.
"""

from __future__ import annotations

import os
import sqlite3
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from run_store.run_index.folders import identities_below, places_below, places_in
from run_store.run_index.queries import RunQuery
from run_store.run_index.rows import COLUMNS, IndexedRun, RunSummary, stamp_of, to_row, to_run
from run_store.sqlite_files import Schema, open_file, told, transaction

INDEX_NAME = "runs.sqlite"
_BATCH = 50  # runs read in one transaction, for which a training may have to wait
_FORGOTTEN = 3600.0  # seconds after which nobody is still about to write what was announced

Read = Callable[[Path], RunSummary | None]
"""What lies in a run's folder; None where there is none. It raises nothing for a damaged run."""

_TABLES = """
CREATE TABLE runs (
    place TEXT PRIMARY KEY,
    stamp TEXT NOT NULL,
    changed INTEGER NOT NULL,
    id TEXT NOT NULL,
    name TEXT NOT NULL,
    status TEXT NOT NULL,
    model TEXT NOT NULL,
    dataset TEXT NOT NULL,
    created TEXT NOT NULL,
    ended TEXT,
    parent_run TEXT,
    parent_checkpoint TEXT,
    step INTEGER NOT NULL,
    metrics TEXT NOT NULL,
    tags TEXT NOT NULL,
    note TEXT NOT NULL
);
CREATE INDEX runs_by_age ON runs (created, id);
CREATE INDEX runs_by_status ON runs (status);
CREATE INDEX runs_by_id ON runs (id);
CREATE TABLE announced (token TEXT PRIMARY KEY, place TEXT NOT NULL, since REAL NOT NULL);
CREATE TABLE filled (at REAL NOT NULL);
"""
SCHEMA = Schema("index of runs", 1, _TABLES, "DELETE")
_PUT = f"INSERT OR REPLACE INTO runs ({', '.join(COLUMNS)}) VALUES ({', '.join('?' for _ in COLUMNS)})"
_ALL = ", ".join(COLUMNS)


class RunIndex:
    """An open index. A context manager that closes it. Every method may raise a `SqliteFileError`.

    Args:
        root: the folder of all runs.
        read: reads a run's folder.
        patience: seconds to wait for other processes' writes.
        in_memory: for this process alone, where no file can be had.

    Raises:
        SqliteFileError: the file is damaged, of another version or something else, or cannot be opened.
    """

    def __init__(
        self, root: str | os.PathLike[str], read: Read, *, patience: float = 30.0, in_memory: bool = False
    ) -> None:
        self.root = Path(root)
        self.path = self.root / INDEX_NAME
        self._read = read
        if in_memory:
            self._connection = sqlite3.connect(":memory:", isolation_level=None)
            self._connection.executescript(_TABLES)
        else:
            self._connection = open_file(self.path, SCHEMA, read_only=False, patience=patience)

    def close(self) -> None:
        self._connection.close()

    def __enter__(self) -> RunIndex:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # Writing

    def announce(self, place: str) -> str:
        """Leaves word that a run is about to change, and returns what to withdraw it by."""
        token = uuid.uuid4().hex
        with told(self.path):
            self._connection.execute("INSERT INTO announced VALUES (?, ?, ?)", (token, place, time.time()))
        return token

    def refresh(self, places: Iterable[str], withdrawn: str | None = None) -> None:
        """Reads runs from their folders; those that are gone are forgotten.

        Args:
            places: of the runs.
            withdrawn: what `announce` returned, when the change is made.
        """
        with told(self.path), transaction(self._connection):
            for place in places:
                folder = self.root / place
                stamp, changed = stamp_of(folder)  # first: what is written while it is read has another stamp
                summary = self._read(folder)
                if summary is None:
                    self._connection.execute("DELETE FROM runs WHERE place = ?", (place,))
                else:
                    self._connection.execute(_PUT, to_row(place, stamp, changed, summary))
            if withdrawn is not None:
                self._connection.execute("DELETE FROM announced WHERE token = ?", (withdrawn,))

    def refresh_outdated(self, runs: Iterable[IndexedRun]) -> bool:
        """Reads again those of which the folder has another stamp; whether there were some."""
        outdated = [run.place for run in runs if stamp_of(self.root / run.place)[0] != run.stamp]
        if outdated:
            self.refresh(outdated)
        return bool(outdated)

    def rebuild(self) -> None:
        """Reads every run folder. What others write meanwhile they write here themselves."""
        places = sorted({*places_below(self.root), *(place for (place,) in self._rows("SELECT place FROM runs"))})
        for begin in range(0, len(places), _BATCH):
            self.refresh(places[begin : begin + _BATCH])
        with told(self.path), transaction(self._connection):
            self._connection.execute("DELETE FROM filled")
            self._connection.execute("INSERT INTO filled VALUES (?)", (time.time(),))

    def catch_up(self) -> None:
        """Makes good what can be seen to be missing without looking into run folders: an index that was never filled,
        changes that were announced and not made known, and folders of identities that came or went.
        """
        if not self._rows("SELECT 1 FROM filled"):
            self.rebuild()
            return
        self._follow_announcements()
        known: dict[str, list[str]] = {}
        for (place,) in self._rows("SELECT place FROM runs"):
            known.setdefault(place.rpartition("/")[0], []).append(place)
        there = set(identities_below(self.root))
        changed = [place for identity in known.keys() - there for place in known[identity]]
        changed += [place for identity in there - known.keys() for place in places_in(self.root, identity)]
        if changed:
            self.refresh(sorted(changed))

    def _follow_announcements(self) -> None:
        announced = self._rows("SELECT token, place, since FROM announced")
        if not announced:
            return
        stamps = dict(self._rows("SELECT place, stamp FROM runs WHERE place IN (SELECT place FROM announced)"))
        places = {place for _, place, _ in announced}
        self.refresh(sorted(place for place in places if stamp_of(self.root / place)[0] != stamps.get(place, "")))
        # a writer that is still at work withdraws its own, and must not find it gone before it has written
        forgotten = [(token,) for token, _, since in announced if time.time() - since > _FORGOTTEN]
        with told(self.path), transaction(self._connection):
            self._connection.executemany("DELETE FROM announced WHERE token = ?", forgotten)

    # Reading

    def page(self, query: RunQuery, lost: Sequence[str] = ()) -> list[IndexedRun]:
        """The runs on the page that `query` asks for. `lost`: see `RunQuery.where`."""
        where, values = query.where(lost)
        page, more = query.page()
        return self._runs(f"WHERE {where} {page}", [*values, *more])

    def count(self, query: RunQuery, lost: Sequence[str] = ()) -> int:
        """How many there are on all pages."""
        where, values = query.where(lost)
        return int(self._rows(f"SELECT count(*) FROM runs WHERE {where}", values)[0][0])

    def recorded_as(self, statuses: Iterable[str], query: RunQuery) -> list[str]:
        """Places of the runs that `query` asks for, whatever status it asks for, whose record says one of these."""
        where, values = query.where_but_status()
        wanted = list(statuses)
        text = f"SELECT place FROM runs WHERE status IN ({', '.join('?' for _ in wanted)}) AND {where}"
        return [place for (place,) in self._rows(text, [*wanted, *values])]

    def meant_by(self, text: str) -> list[IndexedRun]:
        """The runs whose id starts with `text`, whose place ends with it, or which are called so; newest first."""
        where = "substr(id, 1, length(?1)) = ?1 OR substr('/' || place, -length(?1) - 1) = '/' || ?1 OR name = ?1"
        return self._runs(f"WHERE id != '' AND ({where}) ORDER BY created DESC, id DESC", [text])

    def damaged(self) -> list[IndexedRun]:
        """The run folders without a record that can be read."""
        return self._runs("WHERE id = '' ORDER BY place", [])

    def stamps(self) -> dict[str, str]:
        """The stamp of every run by its place."""
        return dict(self._rows("SELECT place, stamp FROM runs"))

    def _runs(self, rest: str, values: Sequence[Any]) -> list[IndexedRun]:
        return [to_run(row) for row in self._rows(f"SELECT {_ALL} FROM runs {rest}", values)]

    def _rows(self, text: str, values: Sequence[Any] = ()) -> list[Any]:
        with told(self.path):
            return self._connection.execute(text, values).fetchall()
