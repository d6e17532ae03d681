from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from run_store import UserError
from run_store.predictions import (
    EpochSummary,
    PredictionStore,
    delete_predictions_of,
    entry_of,
    store_path,
    store_path_of,
)
from tests.run_store.conftest import NewRun
from tests.run_store.predictions.records import entry, prediction


@pytest.fixture
def store(tmp_path: Path) -> Iterator[PredictionStore]:
    with PredictionStore(store_path(tmp_path)) as store:
        yield store


def test_an_empty_store(store: PredictionStore) -> None:
    assert store.runs() == store.predictions() == store.epochs("a1") == []
    assert store.count() == 0
    store.write([])


def test_no_prediction_is_without_its_run(store: PredictionStore) -> None:
    with pytest.raises(sqlite3.IntegrityError):
        store.write([prediction()])
    store.register(entry())
    store.write([prediction()])
    assert store.count() == 1


def test_of_a_write_that_fails_nothing_is_stored(store: PredictionStore) -> None:
    store.register(entry())
    with pytest.raises(sqlite3.IntegrityError):
        store.write([prediction(0), prediction(1), prediction(run_id="unknown")])
    assert store.count() == 0
    store.write([prediction(0)])
    assert store.count() == 1


def test_a_resumed_run_rewrites_and_never_doubles(store: PredictionStore) -> None:
    store.register(entry())
    store.write([prediction(sample, step) for step in (10, 20) for sample in range(3)])
    again = [prediction(sample, 20, prediction={"text": "resumed"}, scores={"error": 0.5}) for sample in range(3)]
    store.write(again)
    assert store.count() == 6
    assert [one.prediction for one in store.predictions(epoch=2)] == [{"text": "resumed"}] * 3
    assert [one.scores for one in store.predictions(epoch=1)] == [{"error": 10.0}] * 3


def test_a_run_that_is_registered_again_keeps_owner_age_and_predictions(store: PredictionStore) -> None:
    first = entry(user_id="ann", job_id="1")
    store.register(first)
    store.write([prediction()])
    store.register(replace(first, folder="moved", user_id="bob", job_id="2", created_at="2030"))
    store.register(replace(first, folder="moved", user_id=None, job_id=None))
    assert store.runs() == [replace(first, folder="moved", job_id="2")]
    assert store.count() == 1


def test_epochs_are_summed_up_by_member(store: PredictionStore) -> None:
    store.register(entry())
    store.write(
        [
            prediction(0, 10, scores={"rank": 1, "margin": math.nan}),
            prediction(0, 15, scores={"rank": 4, "margin": math.nan}),
            prediction(1, 15, scores={"rank": 4}),
            prediction(0, 20, scores={}),
            prediction(0, 20, member="k16", scores={"rank": 7, "margin": 0.5}),
            prediction(1, 20, member="k16", scores={"rank": 8, "margin": math.inf}),
        ]
    )
    first, second, k16 = store.epochs("a1")
    assert (first.member, first.epoch, first.first_step, first.last_step, first.records) == ("", 1, 10, 15, 3)
    assert list(first.scores) == ["rank", "margin"]
    assert first.scores["rank"] == 3.0
    assert math.isnan(first.scores["margin"])
    assert second == EpochSummary("", 2, 20, 20, 1, {})
    assert k16 == EpochSummary("k16", 2, 20, 20, 2, {"rank": 7.5, "margin": 0.5})
    assert store.epochs("a1", member="k16") == [k16]


def test_deleting_a_run_takes_its_predictions_and_no_others(store: PredictionStore) -> None:
    for run in ("a1", "b2"):
        store.register(entry(run))
        store.write([prediction(sample, run_id=run) for sample in range(3)])
    assert store.delete_run("a1") == 3
    assert [run.run_id for run in store.runs()] == ["b2"]
    assert store.count(run="a1") == 0
    assert store.count() == 3
    with pytest.raises(UserError, match="no predictions of a run a1"):
        store.delete_run("a1")


def shared(path: Path) -> None:
    """a1 is ann's, and bob resumed it; b2 is bob's; c3 is nobody's."""
    with PredictionStore(path) as store:
        for run, owner in (("a1", "ann"), ("b2", "bob"), ("c3", None)):
            store.register(entry(run, user_id=owner))
            store.write([prediction(sample, run_id=run, user_id=owner) for sample in range(3)])
        store.write([prediction(0, 20, run_id="a1", user_id="bob")])


def test_deleting_a_user_takes_the_own_runs_whole_and_the_own_predictions_everywhere(tmp_path: Path) -> None:
    shared(store_path(tmp_path))
    with PredictionStore(store_path(tmp_path)) as store:
        assert store.delete_user("bob") == 4
        assert {run.run_id for run in store.runs()} == {"a1", "c3"}
        assert store.count(run="a1") == 3
        assert store.delete_user("ann") == 3
        assert [run.run_id for run in store.runs()] == ["c3"]
        with pytest.raises(UserError, match="nothing of a user ann"):
            store.delete_user("ann")


def test_a_user_sees_the_own_records_alone(tmp_path: Path) -> None:
    shared(store_path(tmp_path))
    with PredictionStore(store_path(tmp_path), read_only=True, user_id="bob") as store:
        assert {run.run_id for run in store.runs()} == {"a1", "b2"}
        assert {one.user_id for one in store.predictions()} == {"bob"}
        assert store.count() == len(store.predictions()) == 4
        assert store.count(run="a1") == 1
        assert store.count(user="ann") == store.count(run="c3") == 0
        assert [summary.epoch for summary in store.epochs("a1")] == [2]
        assert store.epochs("c3") == []
        with pytest.raises(UserError, match="no predictions of a run c3"):
            store.resolve("c3")


def test_a_user_deletes_the_own_records_alone(tmp_path: Path) -> None:
    shared(store_path(tmp_path))
    with PredictionStore(store_path(tmp_path), user_id="bob") as store:
        with pytest.raises(UserError, match="nothing of a user ann"):
            store.delete_user("ann")
        with pytest.raises(UserError, match="no predictions of a run c3"):
            store.delete_run("c3")
        assert store.delete_run("a1") == 1
    with PredictionStore(store_path(tmp_path)) as store:
        assert store.count(run="a1") == 3


@pytest.mark.parametrize("wanted", ["a1b2", "a1", "first", "v1", "first/spec-0/v1", "runs/first/spec-0/v1"])
def test_a_run_is_meant_by_id_name_or_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wanted: str) -> None:
    monkeypatch.chdir(tmp_path)
    with PredictionStore(store_path("runs")) as store:
        store.register(entry("a1b2", name="first", folder="first/spec-0/v1"))
        store.register(entry("c3d4", name="second", folder="second/spec-0/v2"))
        assert store.resolve(wanted).run_id == "a1b2"
        assert store.resolve(tmp_path / "runs" / "first" / "spec-0" / "v1").run_id == "a1b2"


def test_a_run_that_is_not_there_or_not_the_only_one_is_a_sentence(store: PredictionStore) -> None:
    for run in ("a1b2", "a1c3", "a1d4", "a1e5"):
        store.register(entry(run))
    with pytest.raises(UserError, match=r"there are no predictions of a run zz in .*: give its folder, name or id"):
        store.resolve("zz")
    with pytest.raises(UserError, match=r"sae may be any of 4 runs \(.*, …\): give the id of one"):
        store.resolve("sae")
    with pytest.raises(UserError, match="no predictions of a run"):
        store.resolve("")


def test_pages_count_records(store: PredictionStore) -> None:
    for page in ({"limit": -1}, {"offset": -1}):
        with pytest.raises(ValueError, match="count records"):
            store.predictions(**page)
    assert store.predictions(limit=0) == []


def test_what_is_read_at_one_moment_is_of_that_moment(store: PredictionStore) -> None:
    store.register(entry())
    with PredictionStore(store.path, read_only=True) as reader:
        with reader.at_one_moment():
            assert reader.count() == 0
            store.write([prediction()])
            assert reader.count() == 0
        assert reader.count() == 1


def test_what_is_known_of_a_deleted_run_goes(new_run: NewRun) -> None:
    one, other = new_run(), new_run()
    assert delete_predictions_of(one) == 0
    assert not store_path_of(one.folder).exists(), "nothing was predicted, and nothing is made"
    with PredictionStore(store_path_of(one.folder)) as store:
        store.register(entry_of(one, {}))
        store.write([prediction(run_id=one.id)])
    assert delete_predictions_of(other) == 0
    assert delete_predictions_of(one) == 1
