"""What a calibration counts in real trainings, and that it ends them early. Seconds are not looked at but for their
signs.
"""

from dataclasses import fields

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import TensorBoardLogger

from callbacks import AtomicCheckpointIO, Calibration, SamplePredictions, SaveCheckpoints, slowest
from datamodules.activations import ActivationDataModule
from estimates import Measured
from estimates.machine import PeakWatch
from lightning_modules.autoencoders import TopK
from lightning_modules.sparse_autoencoding import SparseAutoencoding
from run_store.checkpoints import list_checkpoints


@pytest.fixture
def calibrated(store, tmp_path):
    """calibrated(calibration, **settings) → the Trainer, after a fit on some 27 batches an epoch."""

    def fit(calibration, model=None, data=None, ckpt_path=None, **settings):
        torch.manual_seed(0)
        trainer = Trainer(
            **{
                "max_epochs": 3,
                "accelerator": "cpu",
                "logger": TensorBoardLogger(tmp_path, version=0),
                "callbacks": [calibration, SaveCheckpoints(every_n_steps=1)],
                # as the command line has it: the folder of the logger
                "default_root_dir": tmp_path / "lightning_logs" / "version_0",
                "enable_progress_bar": False,
                "enable_model_summary": False,
                "num_sanity_val_steps": 0,
                "log_every_n_steps": 2,
                "plugins": [AtomicCheckpointIO()],
                **settings,
            }
        )
        data = data or ActivationDataModule(str(store), batch_size=64, validation_share=0.1, test_share=0.1)
        trainer.fit(model or SparseAutoencoding(TopK(24, 3)), data, ckpt_path=ckpt_path)
        return trainer

    return fit


def test_it_ends_behind_the_batches_that_count_with_one_save_and_one_validation(calibrated):
    calibration = Calibration(warm_up=3, batches=8, memory=PeakWatch())
    callbacks = [calibration, SamplePredictions(), SaveCheckpoints(every_n_steps=1)]
    trainer = calibrated(calibration, callbacks=callbacks)
    found = {**calibration.found, **calibration.sizes(every=2)}
    assert trainer.global_step == 3 + 8 + 1
    assert (found["batches"], found["warm_batches"], found["start_step"]) == (8, 3, 0)
    assert (found["paced"], found["paced_in"]) == (64, "tokens")
    assert found["validation_batches"] == len(trainer.val_dataloaders)
    (checkpoint,) = list_checkpoints(f"{trainer.log_dir}/checkpoints")
    assert found["checkpoint_bytes"] == checkpoint.bytes
    assert found["host_bytes"] > 0
    assert min(found[name] for name in ("batch", "save", "validation_batch", "moment")) > 0
    assert min(found[name] for name in ("log_step_bytes", "log_once_bytes", "moment_bytes")) > 0
    known = {field.name for field in fields(Measured)} | {"started", "first_batch", "read_alone", "read_beside"}
    assert found.keys() <= known | {"device_total"}


def test_a_run_that_is_shorter_ends_by_itself(calibrated):
    for steps, counted in ((5, 2), (2, 2)):  # the second has nothing but what would have been warming up
        calibration = Calibration(warm_up=3, batches=8)
        assert calibrated(calibration, max_steps=steps).global_step == steps
        assert calibration.found["batches"] == counted
        assert calibration.found["batch"] > 0


def test_the_ends_of_short_epochs_are_no_part_of_a_step(calibrated):
    calibration = Calibration(warm_up=3, batches=10)
    assert calibrated(calibration, limit_train_batches=4, max_epochs=10).global_step == 14
    assert calibration.found["batches"] == 10
    assert calibration.found["epoch"] > 0


def test_accumulated_batches_make_whole_steps(calibrated):
    calibration = Calibration(warm_up=4, batches=8)
    trainer = calibrated(calibration, accumulate_grad_batches=4)
    assert calibration.found["batches"] == 8
    assert trainer.global_step == 4, "the save waits for the step that the next batches lead to"
    assert len(list_checkpoints(f"{trainer.log_dir}/checkpoints")) == 1


def test_time_that_is_up_ends_it_after_the_least_number(calibrated):
    calibration = Calibration(warm_up=1, batches=20, seconds=0.0, least=4)
    calibrated(calibration)
    assert calibration.found["batches"] == 5


def test_a_run_that_goes_on_is_measured_from_where_it_stands(calibrated, tmp_path):
    trainer = calibrated(Calibration(warm_up=1, batches=4))
    (checkpoint,) = list_checkpoints(f"{trainer.log_dir}/checkpoints")
    calibration = Calibration(warm_up=1, batches=4)
    calibrated(calibration, logger=TensorBoardLogger(tmp_path / "again"), ckpt_path=str(checkpoint.path))
    assert calibration.found["start_step"] == checkpoint.step == 6
    assert calibration.found["first_batch"] >= 0


def test_without_other_ranks_what_was_found_is_what_counts():
    assert slowest({"batch": 1.0}) == {"batch": 1.0}


def test_either_product_can_be_tried(calibrated, parts):
    model, data = parts()
    calibration = Calibration(warm_up=1, batches=2)
    calibrated(calibration, model, data, callbacks=[calibration])
    assert calibration.found["paced_in"] in ("tokens", "triplets")
    assert calibration.found["paced"] == data.batch_size
    assert calibration.sizes(every=1)["moment_bytes"] == 0
