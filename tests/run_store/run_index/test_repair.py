"""An index that is missing, damaged, of another release, or held by somebody."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from run_store.record import RunRecord, read_record
from run_store.registry import list_runs
from run_store.run_index import INDEX_NAME
from run_store.run_index.index import SCHEMA

CHECKOUT = Path(__file__).resolve().parents[3]
NewRun = Any  # the fixture of conftest.py


def brought_to(record: RunRecord, *statuses: Any) -> RunRecord:
    for status in statuses:
        record.move_to(status)
    return record


def damaged(content: bytes, how: str) -> bytes:
    return {
        "empty": b"",
        "text": b"this is not a database, however long it may be" * 200,
        "cut": content[: len(content) // 2],
        "overwritten": content[:4096] + b"\xff" * (len(content) - 4096),
    }[how]


@pytest.mark.parametrize("how", ["missing", "empty", "text", "cut", "overwritten", "older", "without its columns"])
def test_an_index_that_is_no_use_is_made_again(
    new_run: NewRun, root: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = [brought_to(new_run(), "failed") for _ in range(3)]
    path = root / INDEX_NAME
    list_runs(root)
    if how == "missing":
        path.unlink()
    elif how == "older":
        connection = sqlite3.connect(path)
        connection.executescript("DROP TABLE runs; CREATE TABLE runs (id)")
        connection.close()
        monkeypatch.setattr("run_store.run_index.index.SCHEMA", replace(SCHEMA, version=2))
    elif how == "without its columns":
        connection = sqlite3.connect(path)
        connection.executescript("DROP TABLE runs; CREATE TABLE runs (id)")
        connection.close()
    else:
        path.write_bytes(damaged(path.read_bytes(), how))
    records[0].begin_attempt()  # the training goes on
    page = list_runs(root)
    assert [run.summary.id for run in page.runs] == [record.id for record in reversed(records)]
    assert page.runs[-1].summary.status == "initialising"
    assert page.warning == ""
    assert list_runs(root) == page


@pytest.mark.parametrize("whose", ["newer release", "somebody else"])
def test_an_index_that_is_not_ours_is_left_alone(new_run: NewRun, root: Path, whose: str) -> None:
    record = new_run()
    path = root / INDEX_NAME
    if whose == "newer release":
        connection = sqlite3.connect(path)
        connection.execute("PRAGMA user_version = 99")
    else:
        path.unlink()
        connection = sqlite3.connect(path)
        connection.execute("CREATE TABLE notes (text)")
    connection.close()
    content = path.read_bytes()
    record.begin_attempt()
    page = list_runs(root)
    assert [run.summary.status for run in page.runs] == ["initialising"]
    assert page.warning.startswith(f"every run folder is read, since {path} is ")
    assert path.read_bytes() == content


def test_a_folder_that_may_only_be_read_is_listed(new_run: NewRun, root: Path) -> None:
    record = new_run()
    (root / INDEX_NAME).unlink()
    (root / INDEX_NAME).mkdir()  # no file can be made there, whoever runs the test
    record.begin_attempt()
    page = list_runs(root)
    assert [run.summary.status for run in page.runs] == ["initialising"]
    assert "cannot be opened" in page.warning


def test_an_index_that_somebody_holds_does_not_stop_a_training(
    new_run: NewRun, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("run_store.run_index.using._WRITERS_PATIENCE", 0.01)
    record = new_run()
    list_runs(root)
    holder = sqlite3.connect(root / INDEX_NAME, isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    record.begin_attempt()
    assert read_record(record.folder).status == "initialising"
    holder.execute("ROLLBACK")
    assert list_runs(root).runs[0].summary.status == "initialising"
