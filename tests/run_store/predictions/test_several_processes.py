"""Real processes that write into one store at once, or are killed while they do."""

from __future__ import annotations

import itertools
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from run_store.predictions import PredictionStore, store_path
from tests.run_store.predictions.records import entry, prediction

CHECKOUT = Path(__file__).resolve().parents[3]
RECORDS, BATCH = 10_000, 20
HEAD = """
import itertools, os, signal, sys
from run_store.predictions import BufferedPredictions, PredictionStore
from run_store.predictions.rows import to_row
from tests.run_store.predictions.records import entry, prediction
path, run = sys.argv[1:3]
"""
WRITES_ALL = """
with PredictionStore(path) as store:
    store.register(entry(run))
    for step in range(int(sys.argv[3])):
        store.write([prediction(sample, step, run) for sample in range(int(sys.argv[4]))])
"""
WRITES_THROUGH_A_BUFFER = """
buffer = BufferedPredictions(path, entry(run), print)
for step in range(int(sys.argv[3])):
    buffer.write([prediction(sample, step, run) for sample in range(int(sys.argv[4]))])
buffer.close()
assert buffer.dropped == buffer.waiting == 0, buffer.outcome()
"""
WRITES_ON_AND_ON = """
with PredictionStore(path) as store:
    store.register(entry(run))
    for step in itertools.count():
        store.write([prediction(sample, step, run) for sample in range(7)])
        print(step, flush=True)
"""
DIES_WITHIN_A_WRITE = """
def rows():
    for sample in range(2000):  # more than SQLite keeps in memory, so some of it is in the log already
        yield to_row(prediction(sample, 1, run, prompt="x" * 4000))
    os.kill(os.getpid(), signal.SIGKILL)

with PredictionStore(path) as store:
    store.register(entry(run))
    store.write_rows(rows())
"""


def started(code: str, path: Path, run: str, *more: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", HEAD + code, str(path), run, *map(str, more)]
    return subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.PIPE, text=True)


def is_sound(path: Path) -> bool:
    connection = sqlite3.connect(path)
    try:
        orphans = connection.execute("PRAGMA foreign_key_check").fetchall()
        return connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)] and not orphans
    finally:
        connection.close()


@pytest.mark.slow
def test_two_runs_that_write_at_once_lose_none_and_double_none(tmp_path: Path) -> None:
    path = store_path(tmp_path)
    writers = [started(WRITES_ALL, path, run, RECORDS // BATCH, BATCH) for run in ("a1", "b2")]
    with PredictionStore(path) as store:  # while they write, whole transactions are seen, and never fewer than before
        seen = [store.count()]
        while any(writer.poll() is None for writer in writers):
            seen.append(store.count())
        assert seen == sorted(seen)
        assert not any(count % BATCH for count in seen)
        assert [writer.wait() for writer in writers] == [0, 0]
        expected = {(step, sample) for step in range(RECORDS // BATCH) for sample in range(BATCH)}
        for run in ("a1", "b2"):
            found = [(one.step, one.sample_index) for one in store.each(run=run)]
            assert len(found) == RECORDS
            assert set(found) == expected
    assert is_sound(path)


def test_two_trainings_that_open_and_close_the_store_lose_none(tmp_path: Path) -> None:
    path = store_path(tmp_path)
    writers = [started(WRITES_THROUGH_A_BUFFER, path, run, 100, 5) for run in ("a1", "b2")]
    assert [writer.communicate()[0] for writer in writers] == ["", ""], "no writing failed"
    assert [writer.returncode for writer in writers] == [0, 0]
    with PredictionStore(path, read_only=True) as store:
        assert [store.count(run=run) for run in ("a1", "b2")] == [500, 500]


@pytest.mark.parametrize("writings", [0, 1, 40])
def test_a_kill_between_or_within_writings_leaves_whole_ones(tmp_path: Path, writings: int) -> None:
    path = store_path(tmp_path)
    writer = started(WRITES_ON_AND_ON, path, "a1")
    assert writer.stdout is not None
    for _ in itertools.islice(writer.stdout, writings + 1):
        pass
    os.kill(writer.pid, signal.SIGKILL)
    assert writer.wait() == -signal.SIGKILL
    with PredictionStore(path, read_only=True) as store:
        found = [(one.step, one.sample_index) for one in store.each()]
    steps = len(found) // 7
    assert steps >= writings + 1, "what it had told as written is there"
    assert found == [(step, sample) for step in range(steps) for sample in range(7)]
    assert is_sound(path)


def test_a_kill_within_one_writing_leaves_nothing_of_it(tmp_path: Path) -> None:
    path = store_path(tmp_path)
    with PredictionStore(path) as store:
        store.register(entry())
        store.write([prediction(3, 0)])
    assert started(DIES_WITHIN_A_WRITE, path, "a1").wait() == -signal.SIGKILL
    assert path.with_name(f"{path.name}-wal").stat().st_size > 1_000_000, "it was in the middle of it"
    with PredictionStore(path, read_only=True) as store:
        assert [one.step for one in store.predictions()] == [0]
    with PredictionStore(path) as store:
        store.write([prediction(3, 1)])
        assert store.count() == 2
    assert is_sound(path)
