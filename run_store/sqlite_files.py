"""Opening a SQLite file of ours: schema, version, and what may be wrong with it in one sentence.

Several processes may write at once and others read meanwhile. Each transaction is short and takes the write lock at
its beginning (BEGIN IMMEDIATE), since one that begins by reading cannot wait for the lock without risking deadlock.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import quote

from run_store.errors import UserError

_POLL = 0.02

# What SQLite says → what is the matter and what to do. Its codes are known to Python from 3.11 on alone.
_MEANINGS = {
    "locked": "is being written by another process: try again when that has ended",
    "disk is full": "cannot be written, since its disk is full: free some space there",
    "readonly": "may only be read: mend its permissions",
    "unable to open": "cannot be opened: mend the permissions of the file and of its folder",
}
_DAMAGES = {
    "not a database": "is damaged or was never a store: put the original back, or delete it to begin anew",
    "no such": "is damaged: put the original back, or delete it to begin anew",  # a table or a column
    "malformed": "is damaged: put the original back, or delete it to begin anew",
}


class SqliteFileError(UserError):
    """What is wrong with the file, and not with what was asked of it."""


class DamagedFileError(SqliteFileError):
    """It is no SQLite database, or not any more."""


class OutdatedFileError(SqliteFileError):
    """An earlier release made it."""


@dataclass(frozen=True)
class Schema:
    """What a file holds.

    Attributes:
        what: it is, in words.
        version: of the schema, from 1.
        statements: that make it, each ended by a semicolon.
        journal: WAL lets readers read while another process writes, and needs all of them on one machine; DELETE works
            wherever the file system has locks.
    """

    what: str
    version: int
    statements: str
    journal: Literal["WAL", "DELETE"]


def open_file(path: Path, schema: Schema, *, read_only: bool, patience: float) -> sqlite3.Connection:
    """Opens the file. A writer makes it when there is none; a reader writes nothing into it, and finds it empty when
    its maker has not come to the schema yet, see `is_new`.

    Args:
        path: of the file.
        schema: what it holds.
        read_only: for a reader.
        patience: seconds to wait for other processes' writes.

    Raises:
        DamagedFileError: it is damaged.
        OutdatedFileError: it is of an earlier version.
        SqliteFileError: it is of a newer release or something else, or cannot be opened.
    """
    with told(path):
        if not read_only:
            path.parent.mkdir(parents=True, exist_ok=True)
        connection = _opened(path, read_only, patience)
        try:
            if not read_only:
                _prepare(connection, schema, patience)
            if not is_new(connection):
                _check_version(connection, path, schema)
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
        DamagedFileError: the file is damaged.
        SqliteFileError: in place of sqlite3's other errors and of the system's; that a row breaks a rule of the schema
            is a bug, and stays as it is.
    """
    try:
        yield
    except sqlite3.IntegrityError:
        raise
    except (sqlite3.Error, OSError) as error:
        if damage := _meaning(_DAMAGES, error):
            raise DamagedFileError(f"{path} {damage}") from error
        otherwise = f"cannot be read or written ({error}): look after its disk and its permissions"
        raise SqliteFileError(f"{path} {_meaning(_MEANINGS, error) or otherwise}") from error


def is_new(connection: sqlite3.Connection) -> bool:
    """Whether nothing has been made in the file yet."""
    return _version(connection) == 0 and connection.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,)


def _meaning(meanings: dict[str, str], error: Exception) -> str | None:
    return next((meaning for words, meaning in meanings.items() if words in str(error)), None)


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


def _prepare(connection: sqlite3.Connection, schema: Schema, patience: float) -> None:
    if schema.journal == "WAL":
        _log_ahead(connection, patience)
    connection.execute("PRAGMA synchronous = NORMAL")  # a kill loses nothing; a power cut the last transactions at most
    if not is_new(connection):
        return
    with transaction(connection):
        if is_new(connection):  # or another process was faster
            for statement in schema.statements.split(";"):
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {schema.version}")


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


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _check_version(connection: sqlite3.Connection, path: Path, schema: Schema) -> None:
    version = _version(connection)
    if version > schema.version:
        raise SqliteFileError(
            f"{path} is of version {version} and this release reads version {schema.version}: update fulgurite"
        )
    if version == 0:
        raise SqliteFileError(f"{path} is no {schema.what}: give another folder of runs, or move the file away")
    if version < schema.version:
        raise OutdatedFileError(f"{path} is of version {version} and this release reads {schema.version}: move it away")
