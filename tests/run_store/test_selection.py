from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from run_store.record import Progress
from run_store.selection import Bounds, Candidate, Criterion, candidate_of, select_best

FVU = Criterion({"val/fvu": 1.0})
CANDIDATES = [
    Candidate("a", "2026-01-01", 300, {"val/fvu": 0.3, "val/l0": 32.0}),
    Candidate("b", "2026-01-02", 200, {"val/fvu": 0.1, "val/l0": 64.0}),
    Candidate("c", "2026-01-03", 100, {"val/fvu": 0.2, "val/l0": 16.0}),
]


@pytest.mark.parametrize(
    ("criterion", "best"),
    [
        (FVU, "b"),
        (Criterion({"val/fvu": 1.0}, "max"), "a"),
        (Criterion({"val/fvu": 1.0}, thresholds={"val/l0": Bounds(at_most=40)}), "c"),
        (Criterion({"val/fvu": 1.0}, thresholds={"val/l0": Bounds(at_least=32, at_most=32)}), "a"),
        (Criterion({"val/fvu": 1.0, "val/l0": 0.01}), "c"),
        (Criterion({"val/fvu": 1.0}, thresholds={"val/fvu": Bounds(at_most=0.05)}), None),
    ],
)
def test_the_best_by_metric_direction_and_thresholds(criterion: Criterion, best: str | None) -> None:
    assert select_best(CANDIDATES, criterion).best == best


def test_it_says_why_each_of_the_others_was_left_out() -> None:
    odd = [Candidate("d", "", 0, {}), Candidate("e", "", 0, {"val/fvu": math.nan, "val/l0": 1})]
    criterion = Criterion({"val/fvu": 1.0}, thresholds={"val/l0": Bounds(at_most=40)})
    selection = select_best([*CANDIDATES, *odd], criterion)
    assert (selection.best, selection.score) == ("c", 0.2)
    assert selection.rejected == {
        "a": "scores 0.3",
        "b": "val/l0 is 64, above 40",
        "d": "has no val/fvu",
        "e": "val/fvu is nan",
    }
    assert select_best([], FVU).best is None


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("direction", ["min", "max"])
def test_what_is_no_number_is_never_best(value: float, direction: Any) -> None:
    odd = Candidate("odd", "2027", 999, {"val/fvu": value})
    criterion = Criterion({"val/fvu": 1.0}, direction)
    assert select_best([odd], criterion).best is None
    assert select_best([odd, CANDIDATES[0]], criterion).best == "a"


def test_a_sum_that_no_float_holds_is_never_best() -> None:
    huge = Candidate("huge", "", 0, {"a": 1e308, "b": 1e308})
    assert select_best([huge], Criterion({"a": 1.0, "b": 1.0}, "max")).best is None


@pytest.mark.parametrize(
    ("tie_break", "best"), [("newest", "b"), ("oldest", "c"), ("most_steps", "a"), ("fewest_steps", "b")]
)
def test_ties_are_broken_as_named(tie_break: Any, best: str) -> None:
    metrics = {"val/fvu": 0.1}
    equals = [Candidate("a", "2", 3, metrics), Candidate("b", "3", 1, metrics), Candidate("c", "1", 2, metrics)]
    selection = select_best(equals, Criterion({"val/fvu": 1.0}, tie_break=tie_break))
    assert selection.best == best
    assert set(selection.rejected.values()) == {"ties and loses"}


METRICS = st.dictionaries(st.sampled_from(["x", "y"]), st.sampled_from([0.0, 1.0, 2.0, math.nan, math.inf]))


@given(
    drawn=st.lists(st.tuples(st.sampled_from("123"), st.integers(0, 2), METRICS), max_size=6),
    tie_break=st.sampled_from(["newest", "oldest", "most_steps", "fewest_steps"]),
    direction=st.sampled_from(["min", "max"]),
    data=st.data(),
)
def test_the_order_of_candidates_does_not_matter(
    drawn: list[Any], tie_break: Any, direction: Any, data: st.DataObject
) -> None:
    candidates = [Candidate(f"run {number}", *each) for number, each in enumerate(drawn)]
    criterion = Criterion({"x": 1.0}, direction, {"y": Bounds(at_most=1.0)}, tie_break)
    selection = select_best(candidates, criterion)
    assert select_best(data.draw(st.permutations(candidates)), criterion) == selection
    assert {selection.best, *selection.rejected} - {None} == {candidate.id for candidate in candidates}
    good = [each.metrics["x"] for each in candidates if math.isfinite(each.metrics.get("x", math.nan))]
    if selection.score is not None:
        assert selection.score in good


def test_a_run_is_a_candidate_with_what_it_noted_last(new_run: Any) -> None:
    record = new_run()
    record.report(Progress(7), {"val/fvu": 0.5})
    assert candidate_of(record) == Candidate(record.id, record.created, 7, {"val/fvu": 0.5})
