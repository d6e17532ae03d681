from __future__ import annotations

import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from run_store import UserError
from run_store.predictions import PredictionStore, store_path
from run_store.sqlite_files import transaction
from tests.run_store.predictions.records import entry, prediction

CHECKOUT = Path(__file__).resolve().parents[3]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A store of one prediction, alone in its folder, with a name that means something in an address."""
    path = store_path(tmp_path / "runs of 100%? #1")
    with PredictionStore(path) as store:
        store.register(entry())
        store.write([prediction()])
    return path


def names(path: Path) -> set[str]:
    return {file.name for file in path.parent.iterdir()}


def test_a_closed_store_is_one_file(path: Path) -> None:
    assert names(path) == {path.name}


def test_a_reader_makes_no_file(tmp_path: Path) -> None:
    path = store_path(tmp_path / "runs")
    with pytest.raises(UserError, match="there are no predictions, since there is no file"):
        PredictionStore(path, read_only=True)
    assert list(tmp_path.iterdir()) == []


def test_a_reader_writes_nothing(path: Path) -> None:
    with PredictionStore(path, read_only=True) as store, pytest.raises(UserError, match="may only be read"):
        store.write([prediction(1)])


def test_a_reader_reads_while_a_training_writes(path: Path) -> None:
    with PredictionStore(path) as writer, PredictionStore(path, read_only=True, patience=0) as reader:
        with transaction(writer._connection):
            writer._connection.execute("DELETE FROM predictions")
            assert reader.count() == 1, "what is not finished is not seen, and nobody waits"
        assert reader.count() == 0


def test_who_waits_too_long_for_a_writer_is_told(path: Path) -> None:
    with PredictionStore(path) as writer, PredictionStore(path, patience=0) as other:
        with (
            transaction(writer._connection),
            pytest.raises(UserError, match=r"predictions\.sqlite is being written by another process: try again"),
        ):
            other.write([prediction(1)])
        other.write([prediction(1)])


def test_a_store_of_a_newer_release_is_refused(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 2")
    connection.close()
    for read_only in (True, False):
        with pytest.raises(UserError, match="is of version 2 and this release reads version 1: update fulgurite"):
            PredictionStore(path, read_only=read_only)


def test_somebody_elses_database_is_left_alone(tmp_path: Path) -> None:
    path = store_path(tmp_path)
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE notes (text)")
    connection.close()
    for read_only in (True, False):
        with pytest.raises(UserError, match="is no store of predictions"):
            PredictionStore(path, read_only=read_only)
    tables = sqlite3.connect(path).execute("SELECT name FROM sqlite_master").fetchall()
    assert tables == [("notes",)]


def test_a_store_that_is_not_made_yet_has_no_predictions(tmp_path: Path) -> None:
    store_path(tmp_path).touch()  # a writer was killed before it came to the schema
    with pytest.raises(UserError, match=r"there are no predictions in .* yet"):
        PredictionStore(store_path(tmp_path), read_only=True)
    with PredictionStore(store_path(tmp_path)) as store:
        assert store.count() == 0


@pytest.mark.parametrize("read_only", [True, False])
@pytest.mark.parametrize("damage", ["text", "cut", "overwritten"])
def test_a_damaged_file_is_one_sentence(path: Path, damage: str, read_only: bool) -> None:
    content = path.read_bytes()
    damaged = {
        "text": b"this is not a database, however long it may be" * 100,
        "cut": content[: len(content) // 2],
        "overwritten": content[:4096] + b"\xff" * (len(content) - 4096),
    }
    path.write_bytes(damaged[damage])
    with (
        pytest.raises(UserError, match=r"predictions\.sqlite is damaged.*: put the original back, or delete it"),
        PredictionStore(path, read_only=read_only) as store,
    ):
        store.predictions()


def test_a_folder_in_the_place_of_the_file(tmp_path: Path) -> None:
    store_path(tmp_path).mkdir()
    with pytest.raises(UserError, match="cannot be opened"):
        PredictionStore(store_path(tmp_path))
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be"):
        PredictionStore(store_path(tmp_path / "file"))


def test_a_folder_that_may_only_be_read() -> None:
    code = """
import os, sys
from run_store import UserError
from run_store.predictions import PredictionStore
if os.geteuid() == 0:
    os.setuid(65534)  # root may write anywhere; nobody may not
with PredictionStore(sys.argv[1], read_only=True) as store:
    print(store.count())
try:
    with PredictionStore(sys.argv[1]) as store:
        store.delete_run("a1")
except UserError as error:
    print(error)
"""
    with tempfile.TemporaryDirectory() as folder:  # tmp_path lies in a folder that nobody else may enter
        path = store_path(folder)
        with PredictionStore(path) as store:
            store.register(entry())
            store.write([prediction()])
        path.parent.chmod(0o555)
        command = [sys.executable, "-c", code, path]
        printed = subprocess.run(command, cwd=CHECKOUT, stdout=subprocess.PIPE, check=True, text=True).stdout
        path.parent.chmod(0o755)
        assert names(path) == {path.name}
    count, sentence = printed.splitlines()
    assert count == "1"
    assert sentence.startswith((f"{path} may only be read", f"{path} cannot be opened"))
