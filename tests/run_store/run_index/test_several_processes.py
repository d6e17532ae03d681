"""Real processes that write records at once, or are killed while they do."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from run_store.record import RunRecord, read_record
from run_store.registry import list_runs
from run_store.run_index import INDEX_NAME, RunQuery

CHECKOUT = Path(__file__).resolve().parents[3]
NewRun = Any  # the fixture of conftest.py


def brought_to(record: RunRecord, *statuses: Any) -> RunRecord:
    for status in statuses:
        record.move_to(status)
    return record


def ids(root: Path) -> list[str]:
    return [run.summary.id for run in list_runs(root).runs]


WRITES_ON = """
import os, signal, sys
from run_store.record import Progress, read_record
record = read_record(sys.argv[1])
print("ready", flush=True)
for step in range(int(sys.argv[2])):
    record.report(Progress(step), {"val/fvu": 1 / (1 + step)})
"""


def test_two_trainings_that_write_at_once_are_both_known(new_run: NewRun, root: Path) -> None:
    records = [brought_to(new_run(), "initialising", "running") for _ in range(2)]
    command = [sys.executable, "-c", WRITES_ON]
    writers = [subprocess.Popen([*command, str(record.folder), "30"], cwd=CHECKOUT) for record in records]
    while any(writer.poll() is None for writer in writers):
        assert list_runs(root).total == 2
    assert [writer.returncode for writer in writers] == [0, 0]
    index = sqlite3.connect(root / INDEX_NAME)
    assert index.execute("SELECT step FROM runs").fetchall() == [(29,), (29,)]
    assert index.execute("SELECT count(*) FROM announced").fetchall() == [(0,)]


def test_a_kill_while_writing_leaves_an_index_that_is_right(new_run: NewRun, root: Path) -> None:
    record = brought_to(new_run(), "initialising", "running")
    for _ in range(4):
        command = [sys.executable, "-c", WRITES_ON, str(record.folder), "1000000"]
        with subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            reached = len(record.history())
            while len(record.history()) < reached + 3:
                pass
            process.kill()
        assert list_runs(root, RunQuery(limit=0)).total == 1  # what is on no page is told by the announcement
        stored = sqlite3.connect(root / INDEX_NAME).execute("SELECT step FROM runs").fetchall()
        assert stored == [(read_record(record.folder).progress.step,)]


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_kill_between_record_and_index_is_made_good(new_run: NewRun, root: Path, moment: str) -> None:
    record = new_run()
    list_runs(root)
    code = f"""
import os, signal, sys
from run_store import record as records
from run_store.record import read_record
record = read_record(sys.argv[1])
write = records.write_json
def killed(*arguments):
    if {moment == "after"}:
        write(*arguments)
    os.kill(os.getpid(), signal.SIGKILL)
records.write_json = killed
record.move_to("failed")
"""
    killed = subprocess.run([sys.executable, "-c", code, str(record.folder)], cwd=CHECKOUT)
    assert killed.returncode == -signal.SIGKILL
    expected = "failed" if moment == "after" else "pending"
    assert list_runs(root, RunQuery(status=expected, limit=0)).total == 1


def test_a_kill_while_the_index_is_made_again_is_made_good(new_run: NewRun, root: Path) -> None:
    records = [new_run() for _ in range(4)]
    (root / INDEX_NAME).unlink()
    code = """
import os, signal, sys
from run_store import registry
from run_store.run_index import index
index._BATCH = 1
seen = []
def read(folder, summary_of=registry.summary_of):
    seen.append(folder)
    if len(seen) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return summary_of(folder)
registry.summary_of = read
registry.list_runs(sys.argv[1])
"""
    killed = subprocess.run([sys.executable, "-c", code, str(root)], cwd=CHECKOUT)
    assert killed.returncode == -signal.SIGKILL
    assert (root / INDEX_NAME).exists()
    assert ids(root) == [record.id for record in reversed(records)]


def test_announcements_of_the_dead_are_forgotten_in_time(
    new_run: NewRun, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new_run()
    connection = sqlite3.connect(root / INDEX_NAME, isolation_level=None)
    connection.execute("INSERT INTO announced VALUES ('token', 'sae/spec-00000000_exec-00000000/v1', 0)")
    list_runs(root)  # fills it
    list_runs(root)
    assert connection.execute("SELECT count(*) FROM announced").fetchall() == [(0,)]
