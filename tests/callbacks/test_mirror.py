"""Copying a run in the background."""

from __future__ import annotations

import json
from pathlib import Path
from threading import Event

import pytest

from callbacks.mirror import Mirror, opened
from run_store.checkpoints import newest_valid, remove_checkpoint
from run_store.record import read_record
from tests.callbacks.backed_up import PLACE, Unreliable, fetched, new_run, save, whole_ones


@pytest.fixture
def line():
    Unreliable.store.clear()
    Unreliable.pseudo_dirs[:] = [""]
    Unreliable.writes_left = float("inf")
    yield Unreliable
    Unreliable.writes_left = float("inf")


def test_checkpoints_and_record_can_be_copied_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = new_run(tmp_path / "runs")
    run = record.folder
    (run / "config.1.yaml").write_text("run: {}")
    (run / "run.lock").write_text("{}")
    (run / "notes.txt").write_text("mine")
    save(run, 5), save(run, 10)
    mirror = Mirror(run, f"file://{tmp_path}/drive")
    mirror.offer()
    mirror.finish(60)
    assert mirror.missing() == []
    assert capsys.readouterr().err == ""
    back = fetched(f"file://{tmp_path}/drive", tmp_path / "back") / PLACE
    assert {path.name for path in back.iterdir()} == {"checkpoints", "metadata.json", "events.jsonl", "config.1.yaml"}
    assert read_record(back).id == record.id
    assert newest_valid(back / "checkpoints").checkpoint.step == 10


def test_what_retention_removes_goes_there_too(tmp_path: Path) -> None:
    run = new_run(tmp_path / "runs").folder
    older = save(run, 5)
    mirror = Mirror(run, "memory://retention")
    mirror._round()
    save(run, 10)
    remove_checkpoint(older)
    mirror.finish(60)
    assert whole_ones(fetched("memory://retention", tmp_path / "back") / PLACE / "checkpoints") == {"step-00000010"}


def test_what_another_attempt_has_copied_and_a_lost_disk_stay_there(tmp_path: Path) -> None:
    run = new_run(tmp_path / "runs").folder
    older = save(run, 5)
    Mirror(run, "memory://lost").finish(60)
    remove_checkpoint(older)
    Mirror(run, "memory://lost").finish(60)
    assert whole_ones(fetched("memory://lost", tmp_path / "back") / PLACE / "checkpoints") == {"step-00000005"}


def test_a_short_failure_is_tried_again_and_not_told(
    tmp_path: Path, line: type[Unreliable], capsys: pytest.CaptureFixture[str]
) -> None:
    run = new_run(tmp_path / "runs").folder
    save(run, 5)
    line.writes_left = 3

    class Mended(Mirror):
        def _copy(self) -> None:
            try:
                super()._copy()
            finally:
                line.writes_left = float("inf")

    mirror = Mended(run, "unreliable://target", pause=0.001)
    mirror.finish(60)
    assert (mirror.missing(), mirror.failures, capsys.readouterr().err) == ([], 0, "")


def test_a_target_that_fails_is_told_once_and_counted_at_the_end(
    tmp_path: Path, line: type[Unreliable], capsys: pytest.CaptureFixture[str]
) -> None:
    run = new_run(tmp_path / "runs").folder
    save(run, 5)
    line.writes_left = 0
    mirror = Mirror(run, "unreliable://me:secret@target", tries=2, pause=0.001)
    for _ in range(3):
        mirror._round()
    (told,) = capsys.readouterr().err.splitlines()
    assert told == (
        "warning: nothing could be copied to unreliable://target (ConnectionError: the line is cut): "
        "the training goes on without"
    )
    mirror.finish(60)
    (closing,) = capsys.readouterr().err.splitlines()
    assert "lacks step-00000005, events.jsonl, metadata.json (ConnectionError: the line is cut, 4 rounds" in closing


def test_the_end_waits_no_longer_than_it_may(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = new_run(tmp_path / "runs").folder
    hangs = Event()

    class Hanging(Mirror):
        def _copy(self) -> None:
            hangs.wait()

    mirror = Hanging(run, "memory://hanging")
    mirror.finish(0.05)
    mirror.finish(0.05)
    (line,) = capsys.readouterr().err.splitlines()
    assert "lacks events.jsonl, metadata.json (0 s were not enough)" in line
    hangs.set()


def test_the_record_comes_after_the_checkpoints(tmp_path: Path, line: type[Unreliable]) -> None:
    run = new_run(tmp_path / "runs").folder
    save(run, 5)
    line.writes_left = 8  # a checkpoint takes six, events.jsonl three
    Mirror(run, "unreliable://target", tries=1).finish(60)
    back = fetched("unreliable://target", tmp_path / "back") / PLACE
    assert whole_ones(back / "checkpoints") == {"step-00000005"}
    assert not (back / "metadata.json").exists()


def test_another_run_of_the_same_name_and_number_keeps_its_place(tmp_path: Path) -> None:
    first, second = new_run(tmp_path / "one"), new_run(tmp_path / "two")
    Mirror(first.folder, "memory://shared").finish(60)
    Mirror(second.folder, "memory://shared").finish(60)
    Mirror(first.folder, "memory://shared").finish(60)
    back = fetched("memory://shared", tmp_path / "back") / PLACE
    assert json.loads((back / "metadata.json").read_text())["id"] == first.id
    beside = back.with_name(f"v1-{second.id[:8]}")
    assert json.loads((beside / "metadata.json").read_text())["id"] == second.id
    assert opened(first.folder, "memory://shared").folder.inside.endswith("/v1")


def test_a_checkpoint_that_goes_while_it_is_copied_is_no_failure(tmp_path: Path) -> None:
    run = new_run(tmp_path / "runs").folder
    checkpoint = save(run, 5)
    mirror = Mirror(run, "memory://gone")
    target = opened(run, "memory://gone")
    remove_checkpoint(checkpoint)
    mirror._copy_checkpoint(target, checkpoint)
    mirror.finish(60)
    assert (mirror.missing(), mirror.failures) == ([], 0)
