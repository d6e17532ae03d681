"""Trainings that go on from any step, with what Lightning counts and calls as in one that was not interrupted."""

import pytest
import torch
from lightning.pytorch import Callback, Trainer

from callbacks import AtomicCheckpointIO, SaveCheckpoints
from datamodules.synthetic import FeatureSettings
from datamodules.synthetic_activations import SyntheticActivations
from lightning_modules.folder_checkpoints import LoadsFolders

STEPS = 13
BATCHES_OF_AN_EPOCH = 5


class Recorder(LoadsFolders):
    """Notes what is called when, and the first row of every batch."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.noted = []

    def note(self, what):
        self.noted.append((self.global_step, self.current_epoch, what))

    def training_step(self, batch, batch_idx):
        self.note(int(batch.rows[0]))
        # what loggers have as the step
        self.note(("logged", self.trainer.fit_loop.epoch_loop._batches_that_stepped))
        return self.weight * 0

    def validation_step(self, batch, batch_idx):
        pass

    def on_train_epoch_start(self):
        super().on_train_epoch_start()
        self.note("epoch starts")

    def on_train_epoch_end(self):
        self.note("epoch ends")

    def on_validation_epoch_end(self):
        self.note("validated")

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


class InsideOfSteps(Callback):
    """Saves where Lightning's own callback does: before the end of an epoch is known."""

    def __init__(self, folder):
        self.folder = folder

    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step and not trainer.fit_loop._should_accumulate():
            trainer.save_checkpoint(self.folder / f"inside-{trainer.global_step:02d}")


def run(folder, resume=None, saves=False, **settings):
    model, saves = Recorder(), saves or not resume
    saved = SaveCheckpoints(every_n_steps=1), InsideOfSteps(folder)
    trainer = Trainer(
        max_steps=STEPS,
        accelerator="cpu",
        logger=False,
        default_root_dir=folder,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        plugins=[AtomicCheckpointIO()],
        callbacks=list(saved) if saves else [],
        enable_checkpointing=saves,
        **settings,
    )
    features = FeatureSettings(8, 16, mean_l0=2.0)
    data = SyntheticActivations(features, batch_size=4, train_rows=4 * BATCHES_OF_AN_EPOCH, validation_rows=8)
    trainer.fit(model, data, ckpt_path=resume)
    return model.noted


def steps(noted, first=0):
    """What was read and logged from a step on."""
    return [note for note in noted if not isinstance(note[2], str) and note[0] >= first]


WAYS = {
    "validated": {},
    "never_validated": {"limit_val_batches": 0},
    "validated_by_steps": {"val_check_interval": 3, "check_val_every_n_epoch": None},
    "validated_in_between": {"val_check_interval": 2},
    "seldom_validated": {"check_val_every_n_epoch": 2},
    "accumulated": {"accumulate_grad_batches": 2},
    "cut_short": {"limit_train_batches": 3},
}


@pytest.mark.parametrize(("way", "saved"), [("validated", "step-00000005"), ("never_validated", "step-00000005")])
def test_a_limit_of_steps_loses_no_epoch(tmp_path, way, saved):
    straight = run(tmp_path, **WAYS[way])
    resumed = run(tmp_path / "again", next(tmp_path.rglob(saved)), **WAYS[way])
    assert steps(resumed, BATCHES_OF_AN_EPOCH) == steps(straight, BATCHES_OF_AN_EPOCH)


def test_nor_does_a_second_pause_at_the_end_of_an_epoch(tmp_path):
    straight = run(tmp_path / "straight")
    run(tmp_path / "once", tmp_path / "straight" / "checkpoints" / "step-00000005", saves=True)
    again = run(tmp_path / "twice", tmp_path / "once" / "checkpoints" / "step-00000010", saves=True)
    assert steps(again, 2 * BATCHES_OF_AN_EPOCH) == steps(straight, 2 * BATCHES_OF_AN_EPOCH)
    ends = [tmp_path / name / "checkpoints" / "step-00000013" / "state.ckpt" for name in ("straight", "twice")]
    one, other = (torch.load(end, weights_only=True)["loops"]["fit_loop"] for end in ends)
    assert one == other


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_a_training_goes_on_from_every_step_as_if_it_had_not_stopped(tmp_path, way):
    straight = run(tmp_path, **WAYS[way])
    checkpoints = sorted([*(tmp_path / "checkpoints").iterdir(), *tmp_path.glob("inside-*")])
    for checkpoint in checkpoints:
        if int(checkpoint.name[-2:]) in (1, 3, 4, 5, 6, 9, 10):
            resumed = run(tmp_path / "again", checkpoint, **WAYS[way])
            assert resumed == straight[-len(resumed) :], checkpoint.name
            rows = [what for step, _, what in straight if isinstance(what, int) and step >= int(checkpoint.name[-2:])]
            assert [what for _, _, what in resumed if isinstance(what, int)] == rows
