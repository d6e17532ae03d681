"""A training with predictions is the same one as without, in parts too, and on several ranks."""

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.loggers import TensorBoardLogger

from callbacks import AtomicCheckpointIO, RandomStates, SamplePredictions, SaveCheckpoints
from run_store.checkpoints import list_checkpoints
from tests.callbacks.small_models import fitted, kept, trainer

SHORT = {"text_tokens": 12, "continuation_tokens": 4}


def states_of(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def demand_same(left, right):
    assert left.keys() == right.keys()
    assert not [name for name in left if not torch.equal(left[name], right[name])]


@pytest.mark.first_is_fast
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


@pytest.mark.first_is_fast
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
