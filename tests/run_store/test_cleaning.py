from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from run_store.cleaning import RunRules, plan_cleaning
from run_store.listing import FoundRun
from run_store.record import STATUSES, Lineage, RunRecord
from run_store.retention import UNTOUCHED

NOW = datetime(2026, 6, 1, tzinfo=timezone.utc)


def found(number, status, identity=0, age=10, weights_of=None):
    folder = Path(f"/runs/sae/spec-0000000{identity}_exec-00000000/v{number}")
    created = (NOW - timedelta(days=age)).isoformat()
    record = RunRecord(folder, str(number), "sae", created, "s", "e", status=status, ended=created)
    if weights_of is not None:
        checkpoint = str(weights_of.folder / "checkpoints" / "step-00000001")
        record = replace(record, lineage=Lineage(parent_checkpoint=checkpoint))
    return FoundRun(record, status)


def plan(runs, **rules):
    return [run.record.id for run in plan_cleaning(runs, RunRules(**rules), NOW)]


def test_of_each_identity_the_newest_stay_and_the_others_go_oldest_first():
    runs = [found(1, "failed", age=30), found(2, "interrupted", age=20), found(3, "failed", age=10)]
    assert plan(runs) == ["1", "2"]
    assert plan(runs, keep_last=2) == ["1"]
    assert plan([found(1, "failed"), found(2, "failed", identity=1)]) == []


@pytest.mark.parametrize("status", sorted(UNTOUCHED))
def test_what_is_at_work_or_waited_for_stays(status):
    runs = [found(1, status, age=30), found(2, "complete")]
    assert plan(runs, statuses=STATUSES) == []


def test_young_runs_and_other_statuses_stay():
    runs = [
        found(1, "failed", age=30),
        found(2, "failed", age=5),
        found(3, "complete", age=3),
        found(4, "failed", age=1),
    ]
    assert plan(runs, minimum_age_days=11) == ["1"]
    assert plan(runs, statuses=("complete",)) == ["3"]


def test_a_run_whose_weights_an_unfinished_one_began_with_stays():
    parent = found(1, "failed", age=30)
    newer = found(2, "failed", age=20)
    assert plan([parent, newer, found(3, "interrupted", identity=1, weights_of=parent)]) == []
    assert plan([parent, newer, found(3, "complete", identity=1, weights_of=parent)]) == ["1"]


@given(st.lists(st.tuples(st.sampled_from(STATUSES), st.integers(0, 3), st.integers(0, 50))), st.integers(1, 3))
def test_whatever_there_is_the_newest_and_the_untouched_stay(drawn, keep_last):
    runs = [found(number, status, identity, age) for number, (status, identity, age) in enumerate(drawn, 1)]
    gone = plan_cleaning(runs, RunRules(keep_last, statuses=STATUSES), NOW)
    assert all(run.status not in UNTOUCHED for run in gone)
    for identity in {run.folder.parent for run in runs}:
        ours = [run for run in runs if run.folder.parent == identity]
        assert len(ours) - sum(run in gone for run in ours) >= min(keep_last, len(ours))
