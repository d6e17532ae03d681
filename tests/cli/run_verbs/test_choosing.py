"""`runs best`."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from cli.run_settings import RunSettings
from run_store.listing import find_runs
from run_store.selection import candidate_of
from run_store.selection_cache import cached_best


@pytest.fixture
def runs(complete_run: Any) -> dict[str, Any]:
    return {
        "sparse": complete_run({"val/fvu": 0.3, "val/l0": 10.0}, step=300, model="TopK"),
        "dense": complete_run({"val/fvu": 0.1, "val/l0": 60.0}, step=200, model="TopK"),
        "equal": complete_run({"val/fvu": 0.1, "val/l0": 60.0}, step=100),
        "nan": complete_run({"val/fvu": math.nan, "val/l0": 1.0}),
        "none": complete_run({"val/l0": 1.0}),
    }


@pytest.mark.first_is_fast
@pytest.mark.parametrize(
    ("arguments", "best"),
    [
        ([], "equal"),
        (["--metric", "val/fvu", "--tie_break", "oldest"], "dense"),
        (["--tie_break", "most_steps"], "dense"),
        (["--tie_break", "fewest_steps"], "equal"),
        (["--direction", "max"], "sparse"),
        (["--at_most", "val/l0=40"], "sparse"),
        (["--at_least", "val/l0=5", "--at_most", "val/l0=40", "val/fvu=0.9"], "sparse"),
        (["--metric", "val/fvu", "val/l0=0.1"], "sparse"),
        (["--model", "TopK"], "dense"),
    ],
)
def test_criteria(runs: dict[str, Any], printed: Any, arguments: list[str], best: str) -> None:
    assert json.loads(printed("best", *arguments, "--json"))["best"] == runs[best].id


def test_what_cannot_be_compared_is_told(runs: dict[str, Any], printed: Any) -> None:
    runs["nan"].label(tags=["watched"])
    lines = printed("best").splitlines()
    assert lines == [
        f"left out: {runs['none'].folder}: has no val/fvu",
        f"left out: {runs['nan'].folder}: val/fvu is nan",
        f"{runs['equal'].folder} is the best of 5: val/fvu = 0.1 (chosen now and remembered)",
    ]
    told = json.loads(printed("best", "--json"))
    assert told["rejected"][runs["dense"].id] == "ties and loses"
    assert told["score"] == 0.1
    assert "none of 1 complete runs can be chosen" in printed("best", "--tag", "watched", "--metric", "val/l0",
                                                              "--at_least", "val/l0=2", code=2)  # fmt: skip


def test_a_choice_is_remembered_and_worked_out_again_when_asked(runs: dict[str, Any], printed: Any, root: Any) -> None:
    assert not json.loads(printed("best", "--json"))["remembered"]
    (stored,) = (root / "selections").glob("selection-*.json")
    assert json.loads((root / "selections" / "latest.json").read_text())["selection"]["best"] == runs["equal"].id
    assert stored.name in json.loads((root / "selections" / "index.json").read_text()).values()
    assert "(remembered)" in printed("best")
    assert not json.loads(printed("best", "--mode", "force_new", "--json"))["remembered"]
    assert len(list((root / "selections").glob("selection-*.json"))) == 2
    runs["nan"].report(runs["nan"].progress, {"val/fvu": 0.01})
    assert json.loads(printed("best", "--json"))["best"] == runs["nan"].id, "another question"
    printed("best", "--name", "sae")
    assert (root / "sae" / "selections" / "latest.json").exists()


def test_a_training_that_starts_from_the_best_asks_the_same_question(
    runs: dict[str, Any], printed: Any, root: Any
) -> None:
    settings = RunSettings(name="sae", folder=str(root))
    candidates = [candidate_of(run.record) for run in find_runs(root, name="sae", status="complete").runs]
    cached_best(root / "sae" / "selections", candidates, settings.criterion)
    assert json.loads(printed("best", "--name", "sae", "--json"))["remembered"]


@pytest.mark.first_is_fast
@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--metric", "val/fuv"], "no complete run has measured val/fuv: the nearest are val/fvu"),
        (["--at_most", "val/l0<40"], "at_most is 'val/l0<40': write NAME=NUMBER"),
        (["--at_least", "val/l0=nan"], "at_least is 'val/l0=nan'"),
        (["--metric", "val/l0=much"], "metric is 'val/l0=much': write NAME=NUMBER"),
        (["--metric", "val/l0", "val/l0"], "metric names val/l0 twice"),
        (["--name", "other"], "there is no complete run to choose from"),
        (["--direction", "up"], "direction cannot be 'up'"),
    ],
)
def test_mistakes(runs: dict[str, Any], printed: Any, arguments: list[str], expected: str) -> None:
    assert expected in printed("best", *arguments, code=2)
