from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from run_store.checkpoints import checkpoint_path, new_checkpoint
from run_store.completion import describe_outputs
from run_store.locks import RunLock
from run_store.modes import OnDisk, Request, decide
from run_store.record import Progress, RunRecord
from run_store.survey import survey_run, survey_variants

CHECKOUT = Path(__file__).resolve().parents[2]
NewRun = Any  # the fixture of conftest.py


def save(record: RunRecord, step: int) -> Path:
    """A checkpoint of one file."""
    target = checkpoint_path(record.folder / "checkpoints", step)
    with new_checkpoint(target, step, epoch=0) as folder:
        (folder / "model.safetensors").write_bytes(f"weights of {step}".encode())
    return target


def at_work(record: RunRecord) -> RunRecord:
    record.begin_attempt()
    record.move_to("running")
    record.report(Progress(300))
    return record


def finished(record: RunRecord) -> RunRecord:
    (record.folder / "metrics.json").write_text("{}")
    at_work(record).complete(describe_outputs(record.folder, ["metrics.json"]))
    return record


def decided(record: RunRecord) -> Any:
    return decide(Request(), OnDisk(survey_variants(record.folder.parent)))


def test_nothing_is_found_where_nothing_is(tmp_path: Path) -> None:
    assert survey_variants(tmp_path / "missing") == ()


def test_every_kind_of_run_is_seen_as_it_is(new_run: NewRun) -> None:
    complete, killed, locked = finished(new_run()), at_work(new_run()), at_work(new_run())
    newest = [save(killed, 100), save(killed, 200)][-1]
    with RunLock(locked.folder):
        first, second, third = survey_variants(complete.folder.parent)
    assert (first.folder, first.complete, first.final_step) == (complete.folder, True, 300)
    assert (second.status, second.complete, second.why_incomplete) == (
        "interrupted",
        False,
        "its status is interrupted",
    )
    assert second.checkpoint is not None
    assert (second.checkpoint.folder, second.checkpoint.step, second.checkpoint.warning) == (newest, 200, "")
    assert third.status == "running"
    assert third.holder is not None


def test_a_damaged_newest_checkpoint_falls_back_with_a_warning_that_names_both(new_run: NewRun) -> None:
    record = at_work(new_run())
    older, newest = save(record, 100), save(record, 200)
    (newest / "model.safetensors").write_bytes(b"weights of 201")
    decision = decided(record)
    assert (decision.action, decision.checkpoint) == ("resume", older)
    assert str(newest) in decision.warning
    assert str(older) in decision.warning
    (older / "manifest.json").unlink()
    assert decided(record).action == "refuse"
    assert survey_run(record.folder).damaged_checkpoints == 2


def test_checkpoints_of_complete_runs_are_read_only_for_another_run(new_run: NewRun) -> None:
    record = finished(new_run())
    saved = save(record, 300)
    assert survey_run(record.folder).checkpoint is None
    found = survey_run(record.folder, as_source=True).checkpoint
    assert found is not None
    assert found.folder == saved


def test_a_complete_run_with_a_damaged_file_is_finished_again(new_run: NewRun) -> None:
    record = finished(new_run())
    save(record, 300)
    (record.folder / "metrics.json").write_text("[]")
    decision = decided(record)
    assert decision.action == "resume"
    assert "metrics.json is not the file that was written" in decision.reason


@pytest.mark.parametrize("content", [None, "{"])
def test_a_run_without_a_sound_record(new_run: NewRun, content: str | None) -> None:
    record = new_run()
    (record.folder / "metadata.json").unlink()
    if content is None:  # claimed and killed: it may begin again there
        decision = decided(record)
        assert (decision.action, decision.folder, decision.checkpoint) == ("resume", record.folder, None)
    else:
        (record.folder / "metadata.json").write_text(content)
        assert decided(record).action == "refuse"
        assert "metadata.json is damaged" in decided(record).reason


def test_of_plain_starts_at_once_one_trains_and_the_others_are_refused(tmp_path: Path) -> None:
    code = """
import sys
from run_store.fingerprints import Execution, Spec
from run_store.locks import RunLock, deciding
from run_store.modes import OnDisk, Request, decide
from run_store.record import create_record
from run_store.survey import survey_variants
from run_store.variants import claim_variant
with deciding(sys.argv[1]):
    decision = decide(Request(), OnDisk(survey_variants(sys.argv[1])))
    if decision.action == "start_new":
        run = claim_variant(sys.argv[1])
        lock = RunLock(run)
        create_record(run, "sae", Spec({}, {}, {}, 0), Execution({}, "32-true", {}, {}))
print(decision.action, flush=True)
sys.stdin.read()
"""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path / "identity")],
            cwd=CHECKOUT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(10)
    ]
    actions = [process.stdout.readline().strip() for process in processes if process.stdout]
    for process in processes:
        process.communicate()
    assert sorted(actions) == ["refuse"] * 9 + ["start_new"]
    assert [path.name for path in (tmp_path / "identity").iterdir() if path.is_dir()] == ["v1"]
