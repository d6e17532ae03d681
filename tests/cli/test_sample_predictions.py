"""Predictions in a run that the command line makes: in whose name, by which settings."""

import sqlite3
import subprocess
import sys

import pytest
import yaml

from cli import main
from run_store.predictions import PredictionStore, store_path
from tests.cli.jobs import ROOT


def callback_of(config):
    """The settings of SamplePredictions in a config."""
    (entry,) = (
        each
        for each in yaml.safe_load(config.read_text())["trainer"]["callbacks"]
        if each["class_path"].endswith("SamplePredictions")
    )
    return entry.get("init_args")


@pytest.fixture
def with_callback(tmp_path):
    """with_callback(**settings) → options that put it into the job alone."""

    def options(**settings):
        entry = {"class_path": "SamplePredictions", "init_args": settings}
        (tmp_path / "callbacks.yaml").write_text(yaml.safe_dump({"trainer": {"callbacks": [entry]}}))
        return ["--config", str(tmp_path / "callbacks.yaml")]

    return options


def arguments(job, *more):
    """Of the job without its option about the last callback."""
    given = job.arguments()
    place = given.index("--trainer.callbacks.every_n_steps")
    return [*given[:place], *given[place + 2 :], *more]


def test_the_main_job_keeps_five_samples_of_every_epoch(finished):
    job, _ = finished
    record = job.record
    with PredictionStore(store_path(job.runs), read_only=True) as store:
        (run,) = store.runs()
        assert (run.run_id, run.name) == (record.id, "sae")
        assert run.folder == job.run.relative_to(job.runs).as_posix()
        found = store.predictions(run=run.run_id)
    assert sorted({(each.epoch, each.step) for each in found}) == [(0, job.steps // 2), (1, job.steps)]
    assert len(found) == 10
    assert all(each.prediction["kind"] == "latents" and each.ground_truth is None for each in found)
    # a store of MiniLM: nothing goes on with a text
    assert all("continuation" not in each.prediction for each in found)


def test_both_products_have_it_in_their_configs():
    assert callback_of(ROOT / "configs" / "sae.yaml") == callback_of(ROOT / "configs" / "embedder.yaml") is None


@pytest.mark.slow
def test_settings_survive_the_round_trip_through_the_saved_config(job, with_callback, tmp_path):
    settings = {
        "enabled": True,
        "sample_count": 3,
        "sample_frequency": "step",
        "every_n_steps": 7,
        "seed": 4,
        "samples": None,
        "top_k": 2,
        "text_tokens": 9,
        "continuation_tokens": 0,
    }
    assert main(arguments(job, *with_callback(**settings))) == 0
    saved = job.run / "config.1.yaml"
    assert callback_of(saved) == settings
    with PredictionStore(store_path(job.runs), read_only=True) as store:
        (run,) = store.runs()
        first = store.predictions(run=run.run_id)
    # the callback decides nothing about what is trained
    assert main(["fit", "--config", str(saved), "--run.mode", "force_new"]) == 0
    again = job.folders()[-1]
    assert again.name == "v2"
    assert callback_of(again / "config.1.yaml") == settings
    with PredictionStore(store_path(job.runs), read_only=True) as store:
        (other,) = (each for each in store.runs() if each.run_id != run.run_id)
        second = store.predictions(run=other.run_id)
    assert [(each.step, each.prompt, each.scores) for each in first] == [
        (each.step, each.prompt, each.scores) for each in second
    ]
    assert {each.step % 7 for each in first} == {0}


@pytest.mark.slow
def test_what_is_left_out_has_its_default(job, with_callback):
    assert main(arguments(job, *with_callback())) == 0
    assert callback_of(job.run / "config.1.yaml") == {
        "enabled": True,
        "sample_count": 5,
        "sample_frequency": "epoch",
        "every_n_steps": None,
        "seed": 0,
        "samples": None,
        "top_k": 5,
        "text_tokens": 64,
        "continuation_tokens": 20,
    }


@pytest.mark.first_is_fast
@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"sample_count": 101}, "sample_count"),
        ({"sample_count": 0}, "sample_count"),
        ({"sample_count": 2.5}, "sample_count"),
        ({"sample_frequency": "hour"}, "sample_frequency"),
        ({"sample_frequency": "step"}, "set every_n_steps"),
        ({"every_n_steps": 3}, "set sample_frequency to step"),
        ({"sample_frequency": "step", "every_n_steps": 0}, "every_n_steps"),
        ({"top_k": 0}, "top_k"),
    ],
)
def test_settings_that_make_no_sense_are_refused_before_training(job, with_callback, capsys, settings, told):
    assert main(arguments(job, *with_callback(**settings))) == 2
    sentence = capsys.readouterr().err.strip().splitlines()[-1]
    assert sentence.startswith("error: ")
    assert told in sentence
    assert not job.folders()


@pytest.mark.slow
def test_ids_of_job_and_user_reach_every_record(job, with_callback, monkeypatch):
    monkeypatch.setenv("JOB_ID", "job-7")
    monkeypatch.setenv("JOB_USER_ID", "ada")
    assert main(arguments(job, *with_callback(sample_count=2), "--trainer.max_epochs", "1")) == 0
    with sqlite3.connect(store_path(job.runs)) as store:
        for table in ("runs", "predictions"):
            rows = store.execute(f"SELECT DISTINCT job_id, user_id FROM {table}").fetchall()
            assert rows == [("job-7", "ada")]


@pytest.mark.slow
def test_ids_of_job_and_user_reach_the_processes_of_a_launch(job, with_callback, monkeypatch):
    """Processes of one launch are started by Lightning; the first of them writes."""
    monkeypatch.setenv("JOB_ID", "job-8")
    two = ("--trainer.devices", "2", "--trainer.accelerator", "cpu", "--trainer.strategy", "ddp")
    given = arguments(job, *with_callback(), *two, "--trainer.max_epochs", "1")
    done = subprocess.run([sys.executable, "main.py", *given], cwd=ROOT, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    with PredictionStore(store_path(job.runs), read_only=True) as store:
        (run,) = store.runs()
        found = store.predictions(run=run.run_id)
    assert run.job_id == "job-8"
    assert len(found) == 5
