"""Suggestions: the same whether or not the search was killed on the way."""

import sys

import pytest

from run_store import UserError
from search.space import Choice, Range
from search.study import Study

SPACE = {"lr": Range(1e-4, 1e-1, log=True), "k": Range(1, 64), "kind": Choice(("a", ["b", 1], None))}


def score(trial):
    return trial.settings["lr"] * trial.settings["k"]


def suggested(study, count):
    trials = []
    while study.told < count:
        trials.append(study.ask())
        study.tell(None if trials[-1].number == 3 else score(trials[-1]))
    return trials


@pytest.mark.slow
def test_suggestions_lie_in_the_space_and_are_numbered(tmp_path):
    trials = suggested(Study(tmp_path / "study.sqlite", SPACE, "min", 0), 15)
    assert [trial.number for trial in trials] == list(range(1, 16))
    for trial in trials:
        assert list(trial.settings) == list(SPACE)
        assert 1e-4 <= trial.settings["lr"] <= 1e-1
        assert isinstance(trial.settings["k"], int)
        assert trial.settings["kind"] in SPACE["kind"].values


@pytest.mark.slow
def test_a_killed_search_gets_the_suggestions_of_an_uninterrupted_one(tmp_path):
    whole = suggested(Study(tmp_path / "whole.sqlite", SPACE, "min", 5), 14)
    first = Study(tmp_path / "killed.sqlite", SPACE, "min", 5)
    begun = [*suggested(first, 12), first.ask()]  # and is not told of
    again = Study(tmp_path / "killed.sqlite", SPACE, "min", 5)
    assert again.trials() == begun[:12]
    rest = suggested(again, 14)
    assert begun[-1] == rest[0]
    assert begun[:12] + rest == whole


@pytest.mark.slow
def test_a_kill_between_two_values_of_a_suggestion_changes_nothing(tmp_path):
    whole = suggested(Study(tmp_path / "whole.sqlite", SPACE, "max", 1), 4)
    killed = Study(tmp_path / "killed.sqlite", SPACE, "max", 1)
    begun = suggested(killed, 2)
    killed._study.ask({"lr": killed._distributions["lr"]})
    rest = suggested(Study(tmp_path / "killed.sqlite", SPACE, "max", 1), 4)
    assert begun + rest == whole


def test_other_seeds_suggest_other_trials(tmp_path):
    ones = [Study(tmp_path / f"{seed}.sqlite", SPACE, "min", seed).ask() for seed in (0, 1)]
    assert ones[0] != ones[1]


def test_a_missing_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(UserError, match=r"pip install 'fulgurite\[optuna\]'"):
        Study(tmp_path / "study.sqlite", SPACE, "min", 0)


def test_a_damaged_database_is_one_sentence(tmp_path):
    (tmp_path / "study.sqlite").write_bytes(b"no database" * 1000)
    with pytest.raises(UserError, match=r"study\.sqlite cannot be used .*: delete it"):
        Study(tmp_path / "study.sqlite", SPACE, "min", 0)
