"""Opening the SQLite file of predictions: write-ahead log, schema, and what may be wrong with it in one sentence.

Several processes may write at once and others read meanwhile. Each transaction is short and takes the write lock at
its beginning (BEGIN IMMEDIATE), since one that begins by reading cannot wait for the lock without risking deadlock.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

from run_store.errors import UserError

VERSION = 1
_POLL = 0.02

# A run's rows go with it. `predictions.id` keeps the table in the order of writing, which is cheap to append to.
_SCHEMA = """
CREATE TABLE runs (
    run_id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    folder TEXT NOT NULL,
    job_id TEXT,
    user_id TEXT,
    created_at TEXT NOT NULL
);
CREATE TABLE predictions (
    id INTEGER PRIMARY KEY,
    run_id TEXT NOT NULL REFERENCES runs (run_id) ON DELETE CASCADE,
    member TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    step INTEGER NOT NULL,
    sample_index INTEGER NOT NULL,
    prompt TEXT NOT NULL,
    ground_truth TEXT,
    prediction TEXT NOT NULL,
    scores TEXT NOT NULL,
    user_id TEXT,
    job_id TEXT,
    created_at TEXT NOT NULL,
    UNIQUE (run_id, member, step, sample_index)
);
CREATE INDEX predictions_of_user ON predictions (user_id);
CREATE INDEX runs_of_user ON runs (user_id);
"""

# What SQLite says → what is the matter and what to do. Its codes are known to Python from 3.11 on alone.
_MEANINGS = {
    "locked": "is being written by another process: try again when that has ended",
    "disk is full": "cannot be written, since its disk is full: free some space there",
    "readonly": "may only be read: mend its permissions",
    "unable to open": "cannot be opened: mend the permissions of the file and of its folder",
    "not a database": "is damaged or no store of predictions: put the original back, or delete it to begin anew",
    "malformed": "is damaged: put the original back, or delete it to begin anew",
}


def connect(path: Path, *, read_only: bool, patience: float) -> sqlite3.Connection:
    """Opens the file. A writer makes it when there is none; a reader makes no store, and writes nothing into one.

    Args:
        path: of the file.
        read_only: for a reader.
        patience: seconds to wait for other processes' writes.

    Raises:
        UserError: there is none to read, it is damaged, of a newer release or something else, or cannot be opened.
    """
    with told(path):
        if read_only and not path.is_file():
            raise UserError(
                f"there are no predictions, since there is no file {path}: train with callbacks.SamplePredictions, or "
                "give the folder of all runs"
            )
        if not read_only:
            path.parent.mkdir(parents=True, exist_ok=True)
        connection = _opened(path, read_only, patience)
        try:
            if not read_only:
                _prepare(connection, patience)
            elif _is_new(connection):
                raise UserError(f"there are no predictions in {path} yet: wait until a training writes some")
            _check_version(connection, path)
        except BaseException:
            connection.close()
            raise
    return connection


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """All of what is written in the block, or nothing."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        with suppress(sqlite3.Error):  # after some errors, a full disk for one, SQLite has rolled back already
            connection.execute("ROLLBACK")
        raise


@contextmanager
def told(path: Path) -> Iterator[None]:
    """Turns what goes wrong with the file into one sentence.

    Raises:
        UserError: in place of sqlite3's errors and of the system's; that a row breaks a rule of the schema is a bug,
            and stays as it is.
    """
    try:
        yield
    except sqlite3.IntegrityError:
        raise
    except (sqlite3.Error, OSError) as error:
        known = (meaning for words, meaning in _MEANINGS.items() if words in str(error))
        meaning = next(known, f"cannot be read or written ({error}): look after its disk and its permissions")
        raise UserError(f"{path} {meaning}") from error


def _opened(path: Path, read_only: bool, patience: float) -> sqlite3.Connection:
    if not read_only:
        return _connection(path, "rwc", patience)
    connection = _connection(path, "ro", patience)
    try:
        connection.execute("PRAGMA user_version").fetchone()
    except sqlite3.OperationalError as error:
        connection.close()
        # In a folder that may not be written the log cannot be opened. Where there is none, nobody is writing.
        if "locked" in str(error) or path.with_name(f"{path.name}-wal").exists():
            raise
        connection = _connection(path, "ro&immutable=1", patience)
    return connection


def _connection(path: Path, mode: str, patience: float) -> sqlite3.Connection:
    address = f"file:{quote(str(path.absolute()))}?mode={mode}"
    connection = sqlite3.connect(address, uri=True, timeout=patience, isolation_level=None)
    connection.execute("PRAGMA foreign_keys = ON")
    return connection


def _prepare(connection: sqlite3.Connection, patience: float) -> None:
    _log_ahead(connection, patience)
    connection.execute("PRAGMA synchronous = NORMAL")  # a kill loses nothing; a power cut the last transactions at most
    if not _is_new(connection):
        return
    with transaction(connection):
        if _is_new(connection):  # or another process was faster
            for statement in _SCHEMA.split(";"):
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {VERSION}")


def _log_ahead(connection: sqlite3.Connection, patience: float) -> None:
    end = time.monotonic() + patience
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL").fetchone()
            return
        except sqlite3.OperationalError as error:
            # this statement alone does not always wait for other processes
            if "locked" not in str(error) or time.monotonic() >= end:
                raise
            time.sleep(_POLL)


def _is_new(connection: sqlite3.Connection) -> bool:
    return _version(connection) == 0 and connection.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,)


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _check_version(connection: sqlite3.Connection, path: Path) -> None:
    version = _version(connection)
    if version > VERSION:
        raise UserError(f"{path} is of version {version} and this release reads version {VERSION}: update fulgurite")
    if version < VERSION:
        raise UserError(f"{path} is no store of predictions: give another folder of runs, or move the file away")
