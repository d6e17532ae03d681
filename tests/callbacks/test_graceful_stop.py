"""A training that is asked to stop: which step it stops after, and what it says."""

import os
import signal

import pytest
from lightning.pytorch import Callback, Trainer

from callbacks import AtomicCheckpointIO, GracefulStop, RunStopped, SaveCheckpoints
from lightning_modules.autoencoders import TopK
from lightning_modules.sparse_autoencoding import SparseAutoencoding
from run_store.checkpoints import list_checkpoints
from run_store.pausing import is_pause_requested, request_pause


class Asks(Callback):
    """Does something when a step begins."""

    def __init__(self, step, action):
        self.step = step
        self.action = action

    def on_train_batch_start(self, trainer, *_):
        if trainer.global_step == self.step:
            self.step = -1
            self.action()


def stopped(folder, data, step, action, **settings):
    """Trains until the stop and returns its exception and the steps that are saved."""
    stop = GracefulStop(folder)
    trainer = Trainer(
        max_epochs=2,
        accelerator="cpu",
        logger=False,
        default_root_dir=folder,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        plugins=[AtomicCheckpointIO()],
        callbacks=[Asks(step, action), stop, SaveCheckpoints(every_n_steps=None)],
        **settings,
    )
    with pytest.raises(RunStopped) as raised, stop.listening():
        trainer.fit(SparseAutoencoding(TopK(d_sae=24, k=3)), data)
    return raised.value, [checkpoint.step for checkpoint in list_checkpoints(folder / "checkpoints")]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_saves_the_step_that_is_under_way(tmp_path, data, number, code):
    before = signal.getsignal(number)
    stop, steps = stopped(tmp_path, data, 7, lambda: os.kill(os.getpid(), number))
    assert (stop.status, stop.exit_code, steps) == ("interrupted", code, [8])
    assert signal.getsignal(number) == before


def test_a_request_to_pause_is_followed_and_withdrawn(tmp_path, data):
    stop, steps = stopped(tmp_path, data, 3, lambda: request_pause(tmp_path))
    assert (stop.status, stop.exit_code, steps) == ("paused", 0, [4])
    assert not is_pause_requested(tmp_path)


def test_inside_an_accumulation_it_waits_for_the_whole_step(tmp_path, data):
    _, steps = stopped(tmp_path, data, 3, lambda: os.kill(os.getpid(), signal.SIGTERM), accumulate_grad_batches=4)
    assert steps == [4]


def test_a_second_signal_stops_at_once(tmp_path, data):
    def twice():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    _, steps = stopped(tmp_path, data, 5, twice)
    assert steps == []
