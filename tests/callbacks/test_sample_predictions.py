"""A training with predictions: what is kept of it, when, for whom and by which settings."""

import json
import os
import sqlite3
import subprocess
import sys
import warnings

import pytest
from lightning.pytorch import Callback
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from callbacks import SamplePredictions
from lightning_modules.autoencoders import TopK
from lightning_modules.members import Member
from lightning_modules.sparse_autoencoding import SparseAutoencoding
from run_store import UserError
from tests.callbacks.small_models import activations, fitted, kept, trainer

SHORT = {"text_tokens": 12, "continuation_tokens": 4}


# ---- what is kept


def test_every_epoch_keeps_the_same_five_samples(parts, tmp_path):
    fitted(tmp_path, parts, SamplePredictions(**SHORT))
    (run,), found = kept(tmp_path)
    assert {(each.epoch, each.step) for each in found} == {(0, 4), (1, 8)}
    prompts = [{each.sample_index: each.prompt for each in found if each.epoch == epoch} for epoch in (0, 1)]
    assert prompts[0] == prompts[1]
    assert list(prompts[0]) == [0, 1, 2, 3, 4]
    assert {each.run_id for each in found} == {run.run_id}
    first, second = ([each for each in found if each.epoch == epoch] for epoch in (0, 1))
    assert [each.scores for each in first] != [each.scores for each in second]
    assert {each.prediction["kind"] for each in found} <= {"latents", "retrieval"}


@pytest.mark.first_is_fast
@pytest.mark.parametrize(
    ("settings", "steps"),
    [
        ({}, [4, 8]),
        ({"sample_frequency": "step", "every_n_steps": 3}, [3, 6]),
        ({"sample_frequency": "train_end"}, [8]),
        ({"enabled": False}, []),
    ],
)
def test_when_the_model_is_asked(parts, tmp_path, settings, steps):
    fitted(tmp_path, parts, SamplePredictions(**SHORT, **settings))
    _, found = kept(tmp_path)
    assert sorted({each.step for each in found}) == steps
    assert {each.epoch for each in found if each.step > 4} <= {1}


def test_an_accumulated_batch_is_no_step(parts, tmp_path):
    settings = {"sample_frequency": "step", "every_n_steps": 1}
    fitted(tmp_path, parts, SamplePredictions(**SHORT, **settings), accumulate_grad_batches=2)
    _, found = kept(tmp_path)
    assert sorted({each.step for each in found}) == [1, 2, 3, 4]
    assert len(found) == 20


@pytest.mark.first_is_fast
@pytest.mark.parametrize("verb", ["validate", "test"])
def test_a_measurement_keeps_nothing(parts, tmp_path, verb):
    model, data = parts()
    data.shares["test"] = 0.2
    fit = trainer(tmp_path, SamplePredictions())
    fit.fit(model, data)
    (tmp_path / "predictions.sqlite").unlink()
    getattr(fit, verb)(model, data, verbose=False)
    assert kept(tmp_path) == ([], [])


def test_sanity_checks_and_trial_runs_keep_nothing(parts, tmp_path):
    fitted(tmp_path, parts, SamplePredictions(), fast_dev_run=True)
    assert kept(tmp_path) == ([], [])
    fitted(tmp_path, parts, SamplePredictions(**SHORT), num_sanity_val_steps=1, max_epochs=1)
    assert len(kept(tmp_path)[1]) == 5


def test_members_of_a_sweep_are_told_apart(products, tmp_path):
    def sweep():
        members = {"few": Member(TopK(48, 2)), "many": Member(TopK(48, 8))}
        data = activations(str(products / "gpt2"), products / "store", ["residual.1"])
        return SparseAutoencoding(TopK(48), members=members), data

    logger = TensorBoardLogger(tmp_path / "logs")
    fit, _ = fitted(tmp_path, sweep, SamplePredictions(**SHORT), logger=logger)
    _, found = kept(tmp_path)
    assert len(found) == 2 * 2 * 5
    assert {(each.member, each.scores["l0"]) for each in found} == {("few", 2.0), ("many", 8.0)}
    assert set(texts_in(fit.log_dir)) == {"few/predictions", "many/predictions"}


def test_samples_of_a_file_with_ground_truth_where_there_is_one(parts, tmp_path):
    lines = [{"prompt": "gives 3", "ground_truth": "def f3(): 3"}, {"prompt": "gives 4", "index": 9}]
    (tmp_path / "samples.jsonl").write_text("\n".join(map(json.dumps, lines)))
    fitted(tmp_path, parts, SamplePredictions(samples=str(tmp_path / "samples.jsonl"), **SHORT))
    _, found = kept(tmp_path)
    told = {(each.sample_index, each.prompt, each.ground_truth) for each in found}
    assert told == {(0, "gives 3", "def f3(): 3"), (9, "gives 4", None)}
    assert len(found) == 4


# ---- for whom


@pytest.mark.first_is_fast
@pytest.mark.parametrize(("job", "user"), [("job-1", "ada"), ("", ""), (None, None)])
def test_records_carry_the_ids_of_job_and_user(parts, tmp_path, monkeypatch, job, user):
    for name, value in {"JOB_ID": job, "JOB_USER_ID": user}.items():
        monkeypatch.delenv(name, raising=False) if value is None else monkeypatch.setenv(name, value)
    fitted(tmp_path, parts, SamplePredictions(**SHORT), max_epochs=1)
    (run,), found = kept(tmp_path)
    for each in (run, *found):
        assert (each.job_id, each.user_id) == (job or None, user or None)


def test_the_runs_record_stands_before_its_first_prediction(parts, tmp_path):
    fitted(tmp_path, parts, SamplePredictions(**SHORT))
    with sqlite3.connect(tmp_path / "predictions.sqlite") as store:
        store.execute("PRAGMA foreign_keys = ON")
        assert store.execute("PRAGMA foreign_key_check").fetchall() == []
        assert store.execute("SELECT count(*) FROM predictions").fetchone() == (10,)
        (created,) = store.execute("SELECT created_at FROM runs").fetchone()
        assert created <= store.execute("SELECT min(created_at) FROM predictions").fetchone()[0]


# ---- settings


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"sample_count": 101}, "sample_count of callback SamplePredictions is 101: set it to 1 to 100"),
        ({"sample_count": 0}, "is 0"),
        ({"sample_frequency": "step"}, "set every_n_steps, too"),
        ({"every_n_steps": 5}, "every_n_steps of callback SamplePredictions is 5 and sample_frequency epoch"),
    ],
)
def test_settings_that_make_no_sense_are_refused_before_training(parts, tmp_path, settings, sentence):
    with pytest.raises(UserError, match=sentence):
        fitted(tmp_path, parts, SamplePredictions(**settings))


def test_other_samples_by_another_seed_and_count(parts, tmp_path):
    for name, settings in {"a": {"sample_count": 3}, "b": {"sample_count": 3, "seed": 1}}.items():
        fitted(tmp_path / name, parts, SamplePredictions(**SHORT, **settings), max_epochs=1)
    first, second = ({each.prompt for each in kept(tmp_path / name)[1]} for name in "ab")
    assert len(first) == len(second) == 3
    assert first != second


# ---- seeing, and what it costs


def texts_in(log_dir):
    """Tag → the texts of TensorBoard, in the order of their steps."""
    events = EventAccumulator(str(log_dir), size_guidance={"tensors": 0}).Reload()
    return {
        tag.removesuffix("/text_summary"): [
            (event.step, event.tensor_proto.string_val[0].decode()) for event in events.Tensors(tag)
        ]
        for tag in events.Tags()["tensors"]
    }


def test_tensorboard_has_a_text_of_every_moment(parts, tmp_path):
    hostile = "<script>alert(1)</script> | **gives** 3"
    (tmp_path / "samples.jsonl").write_text(json.dumps({"prompt": hostile}))
    callback = SamplePredictions(samples=str(tmp_path / "samples.jsonl"), **SHORT)
    fit, _ = fitted(tmp_path, parts, callback, logger=TensorBoardLogger(tmp_path / "logs"))
    texts = texts_in(fit.log_dir)["predictions"]
    assert [step for step, _ in texts] == [4, 8]
    for _, text in texts:
        assert text.count("### sample") == 1
        assert "<script" not in text
        assert "&#60;script&#62;" in text


class Since(Callback):
    """Moves the beginning of a training into the past."""

    def __init__(self, callback, seconds):
        self.callback, self.seconds = callback, seconds

    def on_train_start(self, *_):
        self.callback._before -= self.seconds


@pytest.mark.parametrize(("seconds", "warnings_told"), [(1e9, 0), (0.0, 1)])
def test_a_warning_where_it_costs_over_five_percent(products, tmp_path, seconds, warnings_told):
    def autoencoder():
        data = activations(str(products / "gpt2"), products / "store", ["residual.1"])
        return SparseAutoencoding(TopK(48, 4)), data

    # a language model that goes on after every step takes far longer than the step
    callback = SamplePredictions(sample_frequency="step", every_n_steps=4, sample_count=50)
    with warnings.catch_warnings(record=True) as record:
        warnings.simplefilter("always")
        fitted(tmp_path, autoencoder, callback, Since(callback, seconds), max_epochs=1)
    told = [str(each.message) for each in record if "predictions of samples took" in str(each.message)]
    assert len(told) == warnings_told
    assert all("lower sample_count of callback SamplePredictions" in sentence for sentence in told)
    assert callback.seconds > 0


def test_ids_of_job_and_user_reach_subprocesses():
    code = "from run_store.predictions import job_id, job_user_id; print(job_id(), job_user_id())"
    environment = {**os.environ, "JOB_ID": "j", "JOB_USER_ID": "u"}
    told = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert told.stdout.split() == ["j", "u"]
