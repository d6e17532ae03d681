"""A training with predictions: what is kept, when and for whom, that nothing stops it, and that it is the same one."""

import json
import os
import sqlite3
import subprocess
import sys
import warnings

import pytest
import torch
from lightning.pytorch import Callback, LightningModule
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.data import DataLoader

from backbones import TextEncoder
from callbacks import AtomicCheckpointIO, RandomStates, SamplePredictions, SaveCheckpoints
from datamodules.contrastive_triplets import TripletDataModule
from datamodules.triplets import TripletFiles
from lightning_modules.autoencoders import TopK
from lightning_modules.contrastive_embedding import ContrastiveEmbedding
from lightning_modules.members import Member
from lightning_modules.sparse_autoencoding import SparseAutoencoding
from run_store import UserError
from run_store.checkpoints import list_checkpoints
from run_store.predictions import PredictionStore
from tests.callbacks.small_models import activations, save_gpt2, trainer
from tests.exports.encoders import save_qwen

SHORT = {"text_tokens": 12, "continuation_tokens": 4}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("predictions")
    save_gpt2(folder / "gpt2")
    save_qwen(folder / "qwen")
    rows = [{"anchor": f"gives {i}", "positive": f"def f{i}(): {i}", "negative": f"def g{i}()"} for i in range(60)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture(params=["autoencoder", "embedder"])
def parts(request, folder):
    """parts() → a model of either product and its data."""

    def autoencoder():
        torch.manual_seed(0)
        return SparseAutoencoding(TopK(48, 4)), activations(str(folder / "gpt2"), folder / "store", ["residual.1"])

    def embedder():
        torch.manual_seed(0)
        # with dropout, whose random numbers go on behind the predictions
        encoder = TextEncoder(str(folder / "qwen"), max_length=32, precision="float32", dropout=True)
        source, cache = TripletFiles(str(folder / "rows.jsonl")), str(folder / "cache")
        return ContrastiveEmbedding(encoder), TripletDataModule(source, 8, validation_share=0.3, cache=cache)

    return {"autoencoder": autoencoder, "embedder": embedder}[request.param]


def kept(folder):
    """(runs, predictions) of the store in a folder; nothing where there is none."""
    if not (folder / "predictions.sqlite").exists():
        return [], []
    with PredictionStore(folder / "predictions.sqlite", read_only=True) as store:
        runs = store.runs()
        return runs, [each for run in runs for each in store.predictions(run=run.run_id)]


def fitted(folder, parts, callback=None, *others, **settings):
    """A training in a folder: its Trainer and model."""
    chosen = [] if callback is None else [callback]
    fit = trainer(folder, *chosen, *others, **settings)
    model, data = parts()
    fit.fit(model, data)
    return fit, model


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


def test_members_of_a_sweep_are_told_apart(folder, tmp_path):
    def sweep():
        members = {"few": Member(TopK(48, 2)), "many": Member(TopK(48, 8))}
        data = activations(str(folder / "gpt2"), folder / "store", ["residual.1"])
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


# ---- nothing about the training changes


def states_of(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def demand_same(left, right):
    assert left.keys() == right.keys()
    assert not [name for name in left if not torch.equal(left[name], right[name])]


@pytest.mark.parametrize("settings", [{}, {"sample_frequency": "step", "every_n_steps": 1}])
def test_weights_are_those_of_a_training_without_predictions(parts, tmp_path, settings):
    _, without = fitted(tmp_path / "without", parts)
    _, disabled = fitted(tmp_path / "off", parts, SamplePredictions(enabled=False))
    _, watched = fitted(tmp_path / "with", parts, SamplePredictions(**SHORT, **settings))
    assert kept(tmp_path / "with")[1]
    demand_same(states_of(without), states_of(watched))
    demand_same(states_of(without), states_of(disabled))


class Modes(Callback):
    """Which parts were in training before each step."""

    def __init__(self):
        self.seen = []

    def on_train_batch_start(self, trainer, pl_module, *_):
        self.seen.append([part.training for part in pl_module.modules()])


def test_the_parts_of_the_model_stay_in_their_modes(parts, tmp_path):
    plain, watched = Modes(), Modes()
    fitted(tmp_path, parts, None, plain)
    fitted(tmp_path, parts, SamplePredictions(**SHORT, sample_frequency="step", every_n_steps=1), watched)
    assert plain.seen == watched.seen


class StopAfter(Callback):
    def __init__(self, steps):
        self.steps = steps

    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == self.steps:
            raise KeyboardInterrupt


def test_a_resumed_training_rewrites_its_predictions_and_doubles_none(parts, tmp_path):
    settings = {"sample_frequency": "step", "every_n_steps": 2}

    def train(folder, *others, resume=None, **more):
        model, data = parts()
        saver = SaveCheckpoints(every_n_steps=3)
        callbacks = [SamplePredictions(**SHORT, **settings), *others, saver, RandomStates()]
        fit = trainer(folder, *callbacks, enable_checkpointing=True, plugins=[AtomicCheckpointIO()], **more)
        fit.fit(model, data, ckpt_path=resume)

    train(tmp_path / "straight")
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        train(tmp_path / "resumed", StopAfter(4))
    first = list_checkpoints(tmp_path / "resumed" / "checkpoints")[0].path
    assert sorted({each.step for each in kept(tmp_path / "resumed")[1]}) == [2, 4]
    train(tmp_path / "resumed", resume=str(first))
    (_,), straight = kept(tmp_path / "straight")
    (_,), resumed = kept(tmp_path / "resumed")
    assert [(each.step, each.sample_index, each.prompt, each.scores, each.prediction) for each in resumed] == [
        (each.step, each.sample_index, each.prompt, each.scores, each.prediction) for each in straight
    ]
    assert len(resumed) == 4 * 5


class OneThread(Callback):
    """A forked child has lost the threads of its parent, and would wait for them."""

    def setup(self, trainer, pl_module, stage):
        torch.set_num_threads(1)


@pytest.mark.slow
def test_two_ranks_keep_the_samples_of_one(parts, tmp_path):
    def samples(folder):
        return {(each.sample_index, each.prompt) for each in kept(folder)[1]}

    fitted(tmp_path / "one", parts, SamplePredictions(**SHORT))
    settings = {"devices": 2, "strategy": "ddp_fork", "logger": TensorBoardLogger(tmp_path / "two")}
    fitted(tmp_path / "two", parts, SamplePredictions(**SHORT), OneThread(), **settings)
    assert samples(tmp_path / "one") == samples(tmp_path / "two")
    (_,), found = kept(tmp_path / "two")
    assert len(found) == 2 * 5


# ---- nothing stops it


def told_by(folder, parts, callback, *others, **settings):
    """A training, and what it says of predictions but for what they cost."""
    with warnings.catch_warnings(record=True) as record:
        warnings.simplefilter("always")
        fit, _ = fitted(folder, parts, callback, *others, **settings)
    told = [str(each.message) for each in record if "redictions" in str(each.message)]
    return fit, [sentence for sentence in told if "took" not in sentence]


@pytest.mark.parametrize("content", [None, "", '{"prompt": 3}', '{"prompt": "a"'])
def test_a_missing_or_malformed_file_is_one_sentence_and_training_goes_on(parts, tmp_path, content):
    file = tmp_path / "samples.jsonl"
    if content is not None:
        file.write_text(content)
    fit, (sentence,) = told_by(tmp_path, parts, SamplePredictions(samples=str(file)))
    assert sentence.startswith("callback SamplePredictions is off, and training goes on: ")
    assert str(file) in sentence
    assert fit.global_step == 8
    assert kept(tmp_path) == ([], [])


class Bare(LightningModule):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(2))

    def training_step(self, batch, batch_idx):
        return self.weight.sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)

    def train_dataloader(self):
        return DataLoader(torch.ones(3, 1))


def test_a_model_that_predicts_nothing_is_one_sentence(tmp_path):
    fit, (sentence,) = told_by(tmp_path, lambda: (Bare(), None), SamplePredictions())
    assert "is off, and training goes on: model Bare predicts nothing" in sentence
    assert fit.global_step == 6


def test_an_unknown_origin_of_activations_is_one_sentence_where_it_is_needed(folder, tmp_path):
    (tmp_path / "samples.jsonl").write_text('{"prompt": "x"}')
    callbacks = SamplePredictions(samples=str(tmp_path / "samples.jsonl")), SamplePredictions(**SHORT)

    def unknown():
        data = activations(str(folder / "gpt2"), folder / "store", ["residual.1"], known=False)
        return SparseAutoencoding(TopK(48, 4)), data

    _, (sentence,) = told_by(tmp_path / "file", unknown, callbacks[0])
    assert "is off, and training goes on: " in sentence
    assert "set data.extractor and data.text" in sentence
    _, nothing = told_by(tmp_path / "validation", unknown, callbacks[1])
    assert nothing == []
    assert len(kept(tmp_path / "validation")[1]) == 10


class Broken(Callback):
    """Breaks what answers for a while."""

    def __init__(self, callback, moments, error):
        self.callback, self.moments, self.error = callback, moments, error

    def on_train_start(self, *_):
        whole, self.asked = self.callback._predictor.answers, 0

        def answers():
            self.asked += 1
            if self.asked in self.moments:
                raise self.error
            return whole()

        self.callback._predictor.answers = answers


def test_a_failing_answer_is_told_once_and_counted_at_the_end(parts, tmp_path):
    callback = SamplePredictions(**SHORT)
    broken = Broken(callback, (1, 2), RuntimeError("no\nmemory"))
    _, told = told_by(tmp_path, parts, callback, broken, max_epochs=3)
    assert told == [
        "no predictions of samples at step 4, and training goes on: RuntimeError: no memory",
        "predictions of samples failed at 2 of 3 moments",
    ]
    assert {each.step for each in kept(tmp_path)[1]} == {12}


class FullDisk(Callback):
    """Puts a folder in the place of the store until an epoch begins."""

    def __init__(self, path, until):
        self.path, self.until = path, until

    def on_train_start(self, *_):
        self.path.mkdir()

    def on_train_epoch_start(self, trainer, *_):
        if trainer.current_epoch == self.until:
            self.path.rmdir()


def test_what_cannot_be_written_is_kept_and_written_later(parts, tmp_path):
    disk = FullDisk(tmp_path / "predictions.sqlite", 2)
    _, (first, last) = told_by(tmp_path, parts, SamplePredictions(**SHORT), disk, max_epochs=3)
    assert "cannot be written now" in first
    assert "2 times: no prediction is lost" in last
    assert sorted({each.step for each in kept(tmp_path)[1]}) == [4, 8, 12]


def test_what_is_lost_is_counted(parts, tmp_path):
    disk = FullDisk(tmp_path / "predictions.sqlite", 99)
    fit, told = told_by(tmp_path, parts, SamplePredictions(**SHORT), disk)
    assert "10 predictions are lost" in told[-1]
    assert fit.global_step == 8


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
    """Tag → the tables of TensorBoard, in the order of their steps."""
    events = EventAccumulator(str(log_dir), size_guidance={"tensors": 0}).Reload()
    return {
        tag.removesuffix("/text_summary"): [
            (event.step, event.tensor_proto.string_val[0].decode()) for event in events.Tensors(tag)
        ]
        for tag in events.Tags()["tensors"]
    }


def test_tensorboard_has_a_table_of_every_moment(parts, tmp_path):
    hostile = "<script>alert(1)</script> | **gives** 3"
    (tmp_path / "samples.jsonl").write_text(json.dumps({"prompt": hostile}))
    callback = SamplePredictions(samples=str(tmp_path / "samples.jsonl"), **SHORT)
    fit, _ = fitted(tmp_path, parts, callback, logger=TensorBoardLogger(tmp_path / "logs"))
    tables = texts_in(fit.log_dir)["predictions"]
    assert [step for step, _ in tables] == [4, 8]
    for _, table in tables:
        lines = table.splitlines()
        assert len(lines) == 3
        assert lines[2].count(" | ") == lines[0].count(" | ")
        assert "<script" not in table
        assert "&#60;script&#62;" in table


class Since(Callback):
    """Moves the beginning of a training into the past."""

    def __init__(self, callback, seconds):
        self.callback, self.seconds = callback, seconds

    def on_train_start(self, *_):
        self.callback._before -= self.seconds


@pytest.mark.parametrize(("seconds", "warnings_told"), [(1e9, 0), (0.0, 1)])
def test_a_warning_where_it_costs_over_five_percent(folder, tmp_path, seconds, warnings_told):
    def autoencoder():
        data = activations(str(folder / "gpt2"), folder / "store", ["residual.1"])
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
