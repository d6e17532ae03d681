from __future__ import annotations

import json
import math
import os
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from datetime import datetime, timezone
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from run_store import UserError
from run_store.code_state import code_state
from run_store.environment import environment_snapshot, hardware, package_versions
from run_store.fingerprints import Execution, Spec
from run_store.record import (
    LIVE,
    STATUSES,
    TRANSITIONS,
    Lineage,
    OutputFile,
    Progress,
    RunRecord,
    Status,
    create_record,
    read_record,
)

CHECKOUT = Path(__file__).resolve().parents[2]
NewRun = Any  # the fixture of conftest.py

# How each status is reached from pending.
WAYS: dict[Status, list[Status]] = {
    "pending": [],
    "initialising": ["initialising"],
    "running": ["initialising", "running"],
    "paused": ["initialising", "running", "paused"],
    "complete": ["initialising", "running", "complete"],
    "failed": ["initialising", "failed"],
    "interrupted": ["initialising", "interrupted"],
}


def brought_to(record: RunRecord, status: Status) -> RunRecord:
    for step in WAYS[status]:
        record.move_to(step)
    return record


def failed_with(record: RunRecord, message: str) -> None:
    try:
        raise RuntimeError(message)
    except RuntimeError as error:
        record.fail(error)


def test_a_new_run_is_pending_and_says_what_it_is(new_run: NewRun) -> None:
    before = datetime.now(timezone.utc)
    record = new_run(
        model="TopK",
        dataset="minilm-layer3",
        lineage=Lineage("parent", "runs/sae/x/v1/checkpoints/step-00000200", "stores/minilm", "5ca1ab1e"),
        git=vars(code_state()),
        packages=package_versions(),
        hardware=hardware(),
        environment=environment_snapshot(),
    )
    assert record.status == "pending"
    assert before <= datetime.fromisoformat(record.created) <= datetime.now(timezone.utc)
    assert read_record(record.folder) == record
    content = json.loads((record.folder / "metadata.json").read_text())
    assert content["lineage"]["store_sha256"] == "5ca1ab1e"
    assert content["spec"]["model"] == {"class_path": "TopK", "k": 32}
    assert content["execution"]["flags"] == dict.fromkeys(["code", "precision", "determinism", "parallelism"], True)
    assert content["packages"]["torch"]
    assert content["hardware"]["cpus"]
    assert content["environment"]["python"]
    assert content["git"]["commit"] or content["git"]["files_sha256"]


def test_every_run_has_an_id_of_its_own(new_run: NewRun) -> None:
    assert len({new_run().id for _ in range(5)}) == 5


def test_a_record_is_not_made_twice(new_run: NewRun) -> None:
    record = new_run()
    with pytest.raises(ValueError, match="has a record already"):
        create_record(record.folder, "sae", Spec({}, {}, {}, 0), Execution({}, "32-true", {}, {}))
    assert read_record(record.folder) == record


# From status to status


@pytest.mark.parametrize(("before", "after"), list(product(STATUSES, STATUSES)))
def test_only_the_transitions_of_the_table_are_possible(new_run: NewRun, before: Status, after: Status) -> None:
    record = new_run()
    record.status = before
    record.write("status")
    if after in TRANSITIONS[before]:
        record.move_to(after)
        assert read_record(record.folder).status == after
    else:
        with pytest.raises(ValueError, match=f"is {before} and cannot become {after}"):
            record.move_to(after)
        assert record == read_record(record.folder)
        assert record.status == before


def test_the_table_has_no_dead_end_and_no_orphan() -> None:
    assert set(TRANSITIONS) == set(STATUSES)
    assert all(TRANSITIONS.values())
    assert set().union(*TRANSITIONS.values()) == set(STATUSES) - {"pending"}


def test_times_and_attempts_are_kept(new_run: NewRun) -> None:
    record = new_run()
    assert (record.started, record.ended) == (None, None)
    record.begin_attempt()
    record.move_to("running")
    first_start = record.started
    assert first_start is not None
    assert record.ended is None
    record.move_to("paused")
    assert record.ended is not None
    assert record.ended >= first_start
    record.begin_attempt(Path("checkpoints/step-00000200"))
    assert (record.started, record.ended) == (first_start, None)
    record.move_to("running")
    record.complete([])
    first, second = read_record(record.folder).attempts
    assert (first.number, first.status, first.checkpoint) == (1, "paused", None)
    assert (second.number, second.status, second.checkpoint) == (2, "complete", "checkpoints/step-00000200")
    assert (first.pid, first.host) == (os.getpid(), socket.gethostname())
    assert first.ended is not None
    assert first.ended <= second.started
    assert second.ended == record.ended


@pytest.mark.parametrize("status", sorted(LIVE))
def test_the_attempt_of_a_killed_process_is_closed_by_the_next(new_run: NewRun, status: Status) -> None:
    record = new_run()
    record.begin_attempt()
    if status == "running":
        record.move_to("running")
    again = read_record(record.folder)
    again.begin_attempt("checkpoints/step-00000200")
    assert [attempt.status for attempt in again.attempts] == ["interrupted", None]
    assert [event["status"] for event in again.history()][-2:] == ["interrupted", "initialising"]


@pytest.mark.parametrize("status", ["pending", "paused", "failed", "interrupted", "complete"])
def test_whatever_stands_still_can_be_started(new_run: NewRun, status: Status) -> None:
    record = brought_to(new_run(), status)
    record.begin_attempt()
    assert read_record(record.folder).status == "initialising"


def test_a_failure_keeps_its_traceback_until_the_next_attempt(new_run: NewRun) -> None:
    record = new_run()
    record.begin_attempt()
    failed_with(record, "the disk of \udcff went away")
    error = read_record(record.folder).error
    assert error is not None
    assert (error.kind, error.message) == ("RuntimeError", "the disk of ? went away")
    assert "in failed_with" in error.traceback
    assert "raise RuntimeError(message)" in error.traceback
    record.begin_attempt()
    assert read_record(record.folder).error is None
    assert [event["message"] for event in record.history() if event["event"] == "error"] == [
        "the disk of \udcff went away"
    ]


# Progress, metrics, outputs


def test_progress_and_metrics_are_updated(new_run: NewRun) -> None:
    record = brought_to(new_run(), "running")
    record.report(Progress(100, 1, 300, 3), {"val/fvu": 0.5, "val/l0": 32})
    record.report(Progress(200, 2, 300, 3), {"val/fvu": 0.25})
    again = read_record(record.folder)
    assert again.progress == Progress(200, 2, 300, 3)
    assert again.metrics == {"val/fvu": 0.25, "val/l0": 32.0}


def test_metrics_that_are_no_numbers_survive_in_strict_json(new_run: NewRun) -> None:
    record = brought_to(new_run(), "running")
    record.report(Progress(1), {"nan": math.nan, "inf": math.inf, "minus": -math.inf, "one": 1.0})

    def refuse(constant: str) -> None:
        raise ValueError(constant)

    text = (record.folder / "metadata.json").read_text()
    assert json.loads(text, parse_constant=refuse)["metrics"]["one"] == 1.0
    again = read_record(record.folder).metrics
    assert math.isnan(again.pop("nan"))
    assert again == {"inf": math.inf, "minus": -math.inf, "one": 1.0}


def test_completing_stores_the_manifest_of_outputs(new_run: NewRun) -> None:
    record = brought_to(new_run(), "running")
    record.complete([OutputFile("metrics.json", 3, "5ca1ab1e")])
    again = read_record(record.folder)
    assert (again.status, again.outputs) == ("complete", [OutputFile("metrics.json", 3, "5ca1ab1e")])


# History


def test_creation_and_every_change_leave_an_event(new_run: NewRun) -> None:
    record = new_run()
    record.begin_attempt()
    record.move_to("running")
    record.report(Progress(100), {"val/fvu": 0.5})
    record.complete([])
    history = read_record(record.folder).history()
    assert [(event["event"], event["status"]) for event in history] == [
        ("created", "pending"),
        ("attempt", "initialising"),
        ("status", "running"),
        ("progress", "running"),
        ("status", "complete"),
    ]
    assert {event["run"] for event in history} == {record.id}
    assert [event["time"] for event in history] == sorted(event["time"] for event in history)
    assert history[3]["progress"]["step"] == 100
    assert history[3]["metrics"] == {"val/fvu": 0.5}


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(choices=st.lists(st.integers(0, 9), max_size=8))
def test_the_history_ends_where_the_record_stands(new_run: NewRun, choices: list[int]) -> None:
    record = new_run()
    way: list[Status] = [record.status]
    for choice in choices:
        possible = sorted(TRANSITIONS[record.status])
        way.append(possible[choice % len(possible)])
        record.move_to(way[-1])
    again = read_record(record.folder)
    assert [event["status"] for event in again.history()] == way
    assert again == record


# Damage


def test_a_kill_while_writing_leaves_a_record_that_can_be_read(new_run: NewRun) -> None:
    record = brought_to(new_run(), "running")
    code = """
import sys
from run_store.record import Progress, read_record
record = read_record(sys.argv[1])
print("ready", flush=True)
for step in range(10**9):
    record.report(Progress(step), {"val/fvu": 1 / (1 + step)})
"""
    for _ in range(3):
        with subprocess.Popen(
            [sys.executable, "-c", code, str(record.folder)], cwd=CHECKOUT, stdout=subprocess.PIPE
        ) as process:
            assert process.stdout is not None
            process.stdout.readline()
            reached = len(record.history())
            while len(record.history()) < reached + 3:
                pass
            process.kill()
        assert process.returncode == -signal.SIGKILL
        again = read_record(record.folder)
        assert again.metrics["val/fvu"] == 1 / (1 + again.progress.step)
    failed_with(again, "afterwards")
    assert again.history()[-1]["event"] == "error"


def test_a_full_disk_keeps_the_old_record(new_run: NewRun, small_disk: Path) -> None:
    record = new_run()
    moved = replace(record, folder=small_disk)
    moved.write("created")
    with pytest.raises(UserError, match="no space left on the disk of"):
        moved.report(Progress(1), {f"metric {number}": 0.0 for number in range(5000)})
    assert read_record(small_disk).progress == Progress()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda content: content.pop("id"), "id"),
        (lambda content: content.update(status="dancing"), "'dancing' is no status"),
        (lambda content: content.update(name=7), "name is no text"),
        (lambda content: content.update(progress={"steps": 1}), "steps"),
        (lambda content: content.update(metrics={"val/fvu": "much"}), "much"),
        (lambda content: content.update(attempts=None), "NoneType"),
        (lambda content: content.update(surprise=1), "surprise"),
        (lambda content: content.pop("version"), "version"),
    ],
)
def test_a_damaged_record_is_told_in_a_sentence(new_run: NewRun, change: Any, told: str) -> None:
    record = new_run()
    path = record.folder / "metadata.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=rf"{path} is damaged \(.*{told}.*\): put the original back or delete the run"):
        read_record(record.folder)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"7", b'"text"', b"\xff\xfe", b"[" * 100_000])
def test_a_record_that_is_no_record_is_damaged(new_run: NewRun, content: bytes) -> None:
    record = new_run()
    (record.folder / "metadata.json").write_bytes(content)
    with pytest.raises(UserError, match="is damaged"):
        read_record(record.folder)


def test_a_record_of_a_newer_release_is_told_apart(new_run: NewRun) -> None:
    record = new_run()
    path = record.folder / "metadata.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "version": 2, "news": True}))
    with pytest.raises(UserError, match="is of version 2 and this release reads version 1: update fulgurite"):
        read_record(record.folder)


def test_a_folder_without_a_record_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is no run, since it has no metadata\.json: check the path"):
        read_record(tmp_path)
