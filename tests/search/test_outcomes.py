"""What trials came to, and why some came to nothing."""

import math

import pytest

from run_store import UserError
from run_store.locks import RunLock
from run_store.selection import Bounds, Criterion
from search.finishing import best_of, selected
from search.outcomes import Outcome, as_json, as_table, complete_run, outcome_of, why_failed
from search.searching import Job
from search.trials import Trial

FVU = Criterion({"val/fvu": 1.0})


@pytest.fixture
def job(tmp_path):
    config = {"run": {"name": "job", "folder": str(tmp_path / "runs")}}
    (tmp_path / "runs" / "job-search").mkdir(parents=True)
    return Job([], config)


@pytest.fixture
def outcome(finished_run):
    def make(number, **metrics):
        record = finished_run(number, **metrics)
        return outcome_of(Trial(number, {"k": number}), ("spec", "exec"), record.folder)

    return make


def test_a_member_has_its_own_figures(finished_run):
    record = finished_run(1, a__val__fvu=0.1, b__val__fvu=0.2, val__fvu=0.15)
    found = outcome_of(Trial(1, {}), ("spec", "exec"), record.folder, "b")
    assert found.metrics == {"val/fvu": 0.2}
    assert (found.step, found.created) == (20, record.created)


def test_the_newest_complete_run_is_found_and_one_at_work_is_refused(finished_run, started_run):
    first, second = finished_run(1), finished_run(1)
    assert complete_run(first.folder.parent) == second.folder
    (second.folder / "metrics.json").unlink()
    assert complete_run(first.folder.parent) == first.folder
    running = started_run(1)
    assert complete_run(running.folder.parent) == first.folder
    with RunLock(running.folder), pytest.raises(UserError, match=r"process \d+ .*is working on .*v3, a trial"):
        complete_run(running.folder.parent)
    assert complete_run(first.folder.parent.with_name("spec-00000000_exec-00000000")) is None


def test_why_a_training_failed_is_told_by_its_record_else_by_its_last_line(started_run, tmp_path):
    record = started_run(1)
    log = tmp_path / "log"
    log.write_text("step 1\nerror: data.batch_size is too large: lower it\n\n")
    assert why_failed(record.folder.parent, 2, log) == "data.batch_size is too large: lower it"
    record.fail(ValueError("no\n such value"))
    assert why_failed(record.folder.parent, 1, log) == "ValueError: no such value"
    assert why_failed(record.folder.parent, -9, log) == "its process was killed by signal 9"
    assert why_failed(tmp_path, 1, tmp_path / "none") == "its process ended with code 1"


def test_the_table_tells_of_each_trial_why_it_is_not_the_best(job, outcome):
    outcomes = [
        outcome(1, val__fvu=0.2, val__l0=30),
        outcome(2, val__fvu=0.1, val__l0=50),
        outcome(3, val__fvu=math.nan, val__l0=30),
        outcome(4, val__l0=30),
        Outcome(Trial(5, {"k": 5}), ("", ""), reason="ValueError: no"),
        outcome(6, val__fvu=0.3, val__l0=30),
    ]
    criterion = Criterion({"val/fvu": 1.0}, thresholds={"val/l0": Bounds(at_most=40)})
    selection = selected(job, outcomes, criterion)
    assert best_of(outcomes, selection) is outcomes[0]
    assert as_table(outcomes, criterion, selection).splitlines() == [
        "trial  k  val/fvu  val/l0",
        "1      1  0.2      30      best",
        "2      2  0.1      50      val/l0 is 50, above 40",
        "3      3  nan      30      val/fvu is nan",
        "4      4  –        30      has no val/fvu",
        "5      5  –        –       failed: ValueError: no",
        "6      6  0.3      30      scores 0.3",
    ]
    plain = as_json(outcomes, selection)
    assert [trial["status"] for trial in plain] == ["complete"] * 4 + ["failed", "complete"]
    assert plain[2]["metrics"] == {"val/fvu": None, "val/l0": 30}


def test_a_selection_is_remembered_until_the_trials_change(job, outcome):
    outcomes = [outcome(1, val__fvu=0.2), outcome(2, val__fvu=0.1)]
    folder = job.folder / "selections"
    assert selected(job, outcomes, FVU).best == selected(job, outcomes, FVU).best == outcomes[1].trial.name
    assert len(list(folder.glob("selection-*.json"))) == 1
    assert selected(job, [*outcomes, outcome(3, val__fvu=0.05)], FVU).best == "3-k3"
    assert len(list(folder.glob("selection-*.json"))) == 2
    assert (folder / "latest.json").exists()
    assert (folder / "index.json").exists()


def test_without_a_best_trial_every_reason_is_told(job, outcome):
    outcomes = [outcome(1), Outcome(Trial(2, {"k": 2}), ("", ""), reason="killed")]
    with pytest.raises(
        UserError, match=r"no trial can be the best \(1-k1 has no val/fvu; 2-k2 has failed \(killed\)\)"
    ):
        best_of(outcomes, selected(job, outcomes, FVU))
