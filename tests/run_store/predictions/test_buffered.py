"""The writer that a failing store does not stop."""

from __future__ import annotations

import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from run_store.predictions import BufferedPredictions, Prediction, PredictionStore, buffered, store_path
from run_store.sqlite_files import transaction
from tests.run_store.predictions.records import entry, prediction


class Training:
    """A run that writes predictions, and what it was told."""

    def __init__(self, path: Path, bound: int = 10) -> None:
        self.told: list[str] = []
        self.buffer = BufferedPredictions(path, entry(), self.told.append, bound)

    def step(self, step: int) -> None:
        self.buffer.write([prediction(sample, step) for sample in range(2)])

    @property
    def counts(self) -> tuple[int, int, int]:
        return self.buffer.failures, self.buffer.waiting, self.buffer.dropped


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return store_path(tmp_path / "runs")


@pytest.fixture(autouse=True)
def no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buffered, "_PATIENCE", 0.0)


def stored(path: Path) -> list[Prediction]:
    with PredictionStore(path, read_only=True) as store:
        return store.predictions()


@contextmanager
def locked(path: Path) -> Iterator[None]:
    with PredictionStore(path) as other, transaction(other._connection):
        yield


@contextmanager
def full(path: Path) -> Iterator[None]:
    """No file of this process grows any more; the kernel answers EFBIG."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextmanager
def damaged(path: Path) -> Iterator[None]:
    sound = path.read_bytes()
    path.write_bytes(b"no database" * 1000)
    yield
    path.write_bytes(sound)


@contextmanager
def a_file_in_the_folders_place(path: Path) -> Iterator[None]:
    shutil.move(path.parent, path.parent.with_name("aside"))
    path.parent.touch()
    yield
    path.parent.unlink()
    shutil.move(path.parent.with_name("aside"), path.parent)


@pytest.mark.parametrize("trouble", [locked, full, damaged, a_file_in_the_folders_place])
def test_what_cannot_be_written_is_written_when_the_store_recovers(
    path: Path, trouble: Callable[[Path], Iterator[None]]
) -> None:
    training = Training(path)
    training.step(0)
    with trouble(path):
        training.step(1)
        training.step(2)
        assert training.counts == (2, 4, 0)
    (sentence,) = training.told
    assert sentence.startswith(f"predictions cannot be written now ({path}")
    assert "training goes on, and up to 10 of them are kept" in sentence
    training.step(3)
    assert training.counts == (2, 0, 0)
    training.buffer.close()
    assert [(one.step, one.sample_index) for one in stored(path)] == [(step, i) for step in range(4) for i in (0, 1)]
    assert training.told == [sentence], "it is told once"
    outcome = f"predictions could not be written to {path} 2 times: no prediction is lost"
    assert training.buffer.outcome() == outcome


def test_beyond_the_bound_the_oldest_are_dropped(path: Path) -> None:
    training = Training(path, bound=5)
    with locked(path):
        for step in range(4):
            training.step(step)
        assert training.counts == (4, 5, 3)
    training.buffer.close()
    assert [(one.step, one.sample_index) for one in stored(path)] == [(1, 1), (2, 0), (2, 1), (3, 0), (3, 1)]
    assert training.buffer.outcome() == f"predictions could not be written to {path} 4 times: 3 predictions are lost"


def test_what_still_waits_at_the_end_is_lost_and_counted(path: Path) -> None:
    training = Training(path)
    with locked(path):
        training.step(0)
        training.buffer.close()
        training.buffer.close()
        assert training.counts == (2, 0, 2)


def test_the_run_is_stored_first_even_when_that_fails_first(path: Path) -> None:
    training = Training(path)
    with locked(path):
        training.step(0)
    training.step(1)
    with PredictionStore(path, read_only=True) as store:
        assert store.runs() == [entry()]
        assert store.count() == 4


def test_a_run_whose_predictions_are_deleted_meanwhile_goes_on(path: Path) -> None:
    training = Training(path)
    training.step(0)
    with PredictionStore(path) as store:
        store.delete_run("a1")
    training.step(1)
    assert {one.step for one in stored(path)} == {1}
    assert training.told == []


def test_a_store_that_is_deleted_meanwhile_is_made_anew(path: Path) -> None:
    training = Training(path)
    training.step(0)
    shutil.rmtree(path.parent)
    training.step(1)
    assert {one.step for one in stored(path)} == {1}


def test_without_trouble_nothing_is_told(path: Path) -> None:
    training = Training(path)
    training.buffer.close()
    assert not path.exists(), "nothing to write makes no store"
    training.step(0)
    training.buffer.close()
    assert training.counts == (0, 0, 0)
    assert training.told == []
    assert training.buffer.outcome() is None


def test_what_json_cannot_hold_is_a_bug_and_keeps_nothing_back(path: Path) -> None:
    training = Training(path)
    with pytest.raises(TypeError):
        training.buffer.write([prediction(0), prediction(1, prediction={"text": object()})])
    training.step(1)
    assert {one.step for one in stored(path)} == {1}


def test_a_full_disk(small_disk: Path) -> None:
    path = store_path(small_disk)
    training = Training(path)
    training.buffer.write([prediction(0, 0, prompt="x" * 100_000)])
    training.step(1)
    assert training.counts == (2, 3, 0)
    assert "disk" in training.told[0]
    subprocess.run(["mount", "-o", "remount,size=1m", small_disk], check=True)
    training.step(2)
    assert training.counts == (2, 0, 0)
    assert [one.step for one in stored(path)] == [0, 1, 1, 2, 2]
