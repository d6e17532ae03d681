"""The SQLite file of predictions: what is in it, and how it is opened."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from run_store.errors import UserError
from run_store.sqlite_files import Schema, is_new, open_file, told

# A run's rows go with it. `predictions.id` keeps the table in the order of writing, which is cheap to append to.
_TABLES = """
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
_SCHEMA = Schema("store of predictions", 1, _TABLES, "WAL")


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
    connection = open_file(path, _SCHEMA, read_only=read_only, patience=patience)
    if read_only and is_new(connection):
        connection.close()
        raise UserError(f"there are no predictions in {path} yet: wait until a training writes some")
    return connection
