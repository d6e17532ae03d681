"""What becomes of entries when a tracker fails: nothing is lost, nothing is raised, and it is told once."""

from __future__ import annotations

import csv
import io
from contextlib import redirect_stderr
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lightning.pytorch.loggers import Logger

from run_store.fingerprints import Execution, Spec
from run_store.record import create_record
from tracking.tracked_run import TrackedRun
from tracking.tracker import Opened, Tracker


class Kept(Logger):
    """Keeps entries until it was given so many."""

    name, version = "kept", "1"

    def __init__(self, most: int) -> None:
        self.most = most
        self.entries: list[Any] = []

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        if len(self.entries) >= self.most:
            raise ConnectionError("connection refused")
        self.entries.append((step, metrics))

    def log_hyperparams(self, params: Any) -> None:
        self.log_metrics(params)

    def finalize(self, status: str) -> None:
        self.entries.append(status)


class Failing(Tracker):
    tracker = "Failing"

    def __init__(self, folder: Path, most: int, opens: bool = True, is_new: bool = True) -> None:
        super().__init__(str(folder))
        self.kept, self.opens, self.is_new, self.asked = Kept(most), opens, is_new, 0

    def open(self, run: TrackedRun, folder: Path) -> Opened:
        self.asked += 1
        if not self.opens:
            raise ConnectionError("connection refused")
        return Opened(self.kept, self.is_new)


def rows(folder: Path, number: int = 1) -> list[dict[str, str]]:
    path = folder / "csv" / str(number) / "metrics.csv"
    return list(csv.DictReader(path.open())) if path.exists() else []


@given(entries=st.integers(0, 6), most=st.integers(0, 7), opens=st.booleans())
def test_every_entry_is_there_or_here(
    tmp_path_factory: pytest.TempPathFactory, entries: int, most: int, opens: bool
) -> None:
    folder = tmp_path_factory.mktemp("run")
    tracker, told = Failing(folder, most, opens), io.StringIO()
    with redirect_stderr(told):
        for step in range(entries):
            tracker.log_metrics({"loss": 1.0 / (1 + step)} | ({"val/fvu": 0.5} if step % 2 else {}), step)
        tracker.finalize("success")
    sent = [entry for entry in tracker.kept.entries if entry != "success"]
    here = rows(folder)
    assert [step for step, _ in sent] + [int(row["step"]) for row in here] == list(range(entries))
    assert len(told.getvalue().splitlines()) == bool(here)
    assert tracker.asked == min(1, entries)


def test_what_goes_wrong_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tracker = Failing(tmp_path, 0)
    for step in range(3):
        tracker.log_metrics({"loss": 1.0}, step)
    tracker.finalize("success")
    assert capsys.readouterr().err == (
        f"warning: Failing cannot be reached (connection refused): the curves go to {tmp_path / 'csv'} from here\n"
    )


def test_a_tracker_that_hangs_holds_up_neither_the_training_nor_its_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hangs = Event()

    class Hanging(Failing):
        def open(self, run: TrackedRun, folder: Path) -> Opened:
            hangs.wait()
            return super().open(run, folder)

    tracker = Hanging(tmp_path, 9)
    tracker._patience = 0.05
    tracker.log_metrics({"loss": 1.0}, 0)
    tracker.log_metrics({"loss": 0.5}, 1)
    tracker.finalize("success")
    tracker.log_metrics({"loss": 0.25}, 2)  # as a measurement after it would
    assert [row["loss"] for row in rows(tmp_path)] == ["1.0", "0.5", "0.25"]
    assert "it has not answered for 0 s" in capsys.readouterr().err
    hangs.set()


def test_settings_of_a_run_that_is_known_are_not_sent_again(tmp_path: Path) -> None:
    for is_new, expected in ((True, [(None, {"k": 8}), "success"]), (False, ["success"])):
        tracker = Failing(tmp_path, 9, is_new=is_new)
        tracker.log_hyperparams({"k": 8})
        tracker.finalize("success")
        assert tracker.kept.entries == expected


def test_it_goes_on_after_an_end(tmp_path: Path) -> None:
    tracker = Failing(tmp_path, 9)
    tracker.finalize("success")
    tracker.log_metrics({"loss": 1.0}, 0)
    tracker.finalize("success")
    tracker.log_metrics({"loss": 0.5}, 1)
    tracker.finalize("failed")
    assert tracker.kept.entries == [(0, {"loss": 1.0}), "success", (1, {"loss": 0.5}), "failed"]
    assert tracker.asked == 1


def test_label_and_lineage_of_a_run_and_of_a_measurement_in_it(tmp_path: Path) -> None:
    for number in (1, 2):
        run = tmp_path / "sae" / f"spec-0123456{number}_exec-89abcdef" / "v1"
        run.mkdir(parents=True)
        spec = Spec({}, {}, {}, number, initial_weights="beef")
        record = create_record(run, "sae", spec, Execution({}, "32-true", {}, {}), git={"commit": "c0ffee"})
        tracked = TrackedRun.of(run)
        assert tracked == TrackedRun.of(run / "validate") == TrackedRun.of(run)
        assert tracked == TrackedRun(
            f"sae-{number}",
            record.id,
            {
                "run": record.id,
                "variant": "v1",
                "spec": record.spec_fingerprint,
                "exec": record.exec_fingerprint,
                "commit": "c0ffee",
                "initial_weights": "beef",
            },
        )
    assert TrackedRun.of(tmp_path) == TrackedRun(tmp_path.name)
