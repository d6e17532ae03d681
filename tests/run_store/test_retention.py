"""The rules one at a time, and who gives way when they clash."""

import math
from pathlib import Path

import pytest

from run_store import UserError
from run_store.checkpoints import StoredCheckpoint
from run_store.retention import RetentionRules, parse_size, plan_retention

NOW = 10_000.0


def checkpoint(number, metric=None, age=1000.0, size=100):
    """The number-th save, at step 100 × number; `metric` None is missing, NaN was measured."""
    metrics = {} if metric is None else {"val/fvu": None if math.isnan(metric) else metric}
    path = Path(f"step-{100 * number:08d}")
    return StoredCheckpoint(path, 100 * number, 0, number, NOW - age, metrics, {}, size)


def steps_left(checkpoints, needed=(), resumable=None, **rules):
    """Hundreds of steps of what stays."""
    resumable = checkpoints[-1].path if resumable is None else checkpoint(resumable).path
    needed = {checkpoint(number).path for number in needed}
    plan = plan_retention(checkpoints, RetentionRules(**rules), NOW, resumable, needed)
    assert sorted((*(kept for kept, _ in plan.kept), *plan.removed), key=lambda c: c.step) == checkpoints
    return [kept.step // 100 for kept, _ in plan.kept]


TEN = [checkpoint(number) for number in range(1, 11)]


@pytest.mark.parametrize("count", [1, 2, 5, 20])
def test_the_last_n_stay(count):
    assert steps_left(TEN, keep_last=count) == list(range(1, 11))[-count:]


def test_the_best_k_stay_by_either_direction_and_nan_or_missing_is_never_best():
    measured = [checkpoint(i, metric) for i, metric in enumerate([0.5, math.nan, 0.1, None, 0.3, None], start=1)]
    best = {"keep_last": 1, "metric": "val/fvu"}
    assert steps_left(measured, keep_best=1, mode="min", **best) == [3, 6]
    assert steps_left(measured, keep_best=2, mode="max", **best) == [1, 5, 6]
    assert steps_left(measured, keep_best=6, mode="min", **best) == [1, 3, 5, 6]


def of_a_sweep(number, mean, k3, k5):
    metrics = {"val/fvu": mean, "k3/val/fvu": k3, "k5/val/fvu": k5, "k3/val/fvu/layer": -mean}
    return StoredCheckpoint(Path(f"step-{100 * number:08d}"), 100 * number, 0, number, NOW, metrics, {}, 100)


def test_the_best_of_each_member_stay_and_yield_to_the_budget_behind_the_best_of_the_mean():
    saved = [of_a_sweep(1, 0.4, 0.1, 0.7), of_a_sweep(2, 0.3, 0.2, 0.4), of_a_sweep(3, 0.5, 0.8, 0.2)]
    saved += [of_a_sweep(4, 0.9, 0.9, 0.9), of_a_sweep(5, 0.9, 0.9, 0.9)]
    best = {"keep_last": 1, "keep_best": 1}
    assert steps_left(saved, metric="val/fvu", **best) == [1, 2, 3, 5]
    assert steps_left(saved, metric="k5/val/fvu", **best) == [3, 5]
    assert steps_left(saved, metric="val/fvu", budget=200, **best) == [2, 5]


@pytest.mark.parametrize(("tie", "winner"), [("newer", 3), ("older", 1)])
def test_a_tie_goes_to_the_one_that_is_named(tie, winner):
    equal = [checkpoint(number, 0.5) for number in (1, 2, 3)] + [checkpoint(4)]
    assert steps_left(equal, keep_best=1, metric="val/fvu", tie=tie) == [winner, 4]


def test_a_milestone_is_the_first_at_or_after_each_multiple():
    assert steps_left(TEN, milestone_every=300) == [3, 6, 9, 10]
    assert steps_left(TEN, milestone_every=250) == [3, 5, 8, 10]


def test_a_minimum_age_keeps_the_young_and_those_from_the_future():
    aged = [checkpoint(1, age=500), checkpoint(2, age=59), checkpoint(3, age=-1000), checkpoint(4, age=500)]
    assert steps_left(aged, minimum_age=60.0) == [2, 3, 4]


def test_the_budget_takes_milestones_then_the_last_then_the_best():
    measured = [checkpoint(i, metric) for i, metric in enumerate([0.5, 0.1, 0.2, 0.5, 0.5, 0.5], start=1)]
    rules = {"keep_last": 3, "keep_best": 2, "metric": "val/fvu", "milestone_every": 100}
    assert steps_left(measured, budget=600, **rules) == [1, 2, 3, 4, 5, 6]
    assert steps_left(measured, budget=599, **rules) == [2, 3, 4, 5, 6]
    assert steps_left(measured, budget=400, **rules) == [2, 3, 5, 6]
    assert steps_left(measured, budget=300, **rules) == [2, 3, 6]
    assert steps_left(measured, budget=200, **rules) == [2, 6]


def test_what_a_resume_or_a_run_needs_and_then_age_come_before_the_budget():
    aged = [checkpoint(1), checkpoint(2), checkpoint(3, age=10), checkpoint(4), checkpoint(5)]
    plan = plan_retention(
        aged, RetentionRules(keep_last=5, minimum_age=60.0, budget=200), NOW, aged[3].path, {aged[0].path}
    )
    assert [(kept.step, reason) for kept, reason in plan.kept] == [
        (100, "a run goes on from it"),
        (300, "younger than 60 s"),
        (400, "a resume takes it"),
    ]
    assert plan.over_budget == 100
    assert plan.freed == 200


def test_a_budget_smaller_than_two_checkpoints_is_refused_by_the_measured_size():
    large = [checkpoint(1, size=10**9), checkpoint(2, size=1_250_000_000)]
    with pytest.raises(UserError, match=r"budget of 2\.4 GB is smaller than two checkpoints of 1\.25 GB.*2\.5 GB"):
        steps_left(large, budget=2_400_000_000)
    assert steps_left(large, budget=2_500_000_000) == [2]


@pytest.mark.parametrize("status", ["pending", "initialising", "running", "paused"])
def test_a_run_that_is_not_over_is_never_thinned_out_by_others(status):
    plan = plan_retention(TEN, RetentionRules(budget=200), NOW, TEN[-1].path, status=status)
    assert not plan.removed
    assert all(reason == f"its run is {status}" for _, reason in plan.kept)


@pytest.mark.parametrize("status", ["complete", "failed", "interrupted", None])
def test_other_runs_are(status):
    assert plan_retention(TEN, RetentionRules(), NOW, TEN[-1].path, status=status).removed


def test_without_a_valid_checkpoint_nothing_goes():
    assert not plan_retention(TEN, RetentionRules(budget=200), NOW, None).removed


def test_the_resumable_one_stays_although_it_is_not_the_last():
    assert steps_left(TEN, resumable=4) == [4, 10]


@pytest.mark.parametrize(
    "rules",
    [{"keep_last": 0}, {"keep_best": -1}, {"keep_best": 1}, {"milestone_every": 0}, {"minimum_age": -1.0}],
    ids=lambda rules: next(iter(rules)),
)
def test_a_rule_that_makes_no_sense_is_refused_by_name(rules):
    with pytest.raises(UserError, match=next(iter(rules))):
        steps_left(TEN, **rules)


@pytest.mark.parametrize(
    ("text", "size"),
    [("10GB", 10**10), ("1.5 GiB", 3 * 2**29), ("512mb", 512 * 10**6), ("100", 100), (100, 100), ("2TB", 2 * 10**12)],
)
def test_sizes_are_read(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["ten", "10 XB", "-5GB", "", "1e9", "GB"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(UserError, match="is not a size"):
        parse_size(text)
