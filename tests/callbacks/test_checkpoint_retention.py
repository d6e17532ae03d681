"""The rules at work in real runs. The rules themselves: tests/run_store/test_retention.py."""

import logging

import pytest
import torch
from jsonargparse import ArgumentError, ArgumentParser
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import CSVLogger

from callbacks import AtomicCheckpointIO, CheckpointRetention, SaveCheckpoints
from lightning_modules.autoencoders import TopK
from lightning_modules.sparse_autoencoding import SparseAutoencoding
from run_store import UserError
from run_store.checkpoints import list_checkpoints


def run(data, folder, retention, saver=None, ckpt_path=None, **settings):
    torch.manual_seed(0)
    settings = {"max_epochs": 2, "val_check_interval": 9, **settings}
    trainer = Trainer(
        accelerator="cpu",
        logger=CSVLogger(folder, version=0),
        callbacks=[retention, saver or SaveCheckpoints(5)],
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        plugins=[AtomicCheckpointIO()],
        **settings,
    )
    trainer.fit(SparseAutoencoding(TopK(24, 3)), data, ckpt_path=ckpt_path)
    return trainer, list_checkpoints(folder / "lightning_logs/version_0/checkpoints")


def steps(checkpoints):
    return [checkpoint.step for checkpoint in checkpoints]


@pytest.mark.parametrize("asynchronous", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_last_best_and_milestones_stay_and_the_others_go(data, tmp_path, asynchronous):
    _, everything = run(data, tmp_path / "all", CheckpointRetention(keep_last=1))
    measured = [c for c in everything if "val/fvu" in c.metrics]
    best = min(measured, key=lambda c: c.metrics["val/fvu"]).step
    worst = max(measured, key=lambda c: c.metrics["val/fvu"]).step
    rules = {"keep_last": 2, "keep_best": 1, "metric": "val/fvu", "milestone_every": 20, "delete": True}
    for mode, kept in (("min", best), ("max", worst)):
        retention = CheckpointRetention(mode=mode, **rules)
        _, left = run(data, tmp_path / mode, retention, SaveCheckpoints(5, asynchronous=asynchronous))
        assert steps(left) == sorted({kept, 20, 40, *steps(everything)[-2:]})


@pytest.mark.parametrize(
    ("settings", "reason"), [({}, "delete is false"), ({"delete": True, "dry_run": True}, "dry_run is true")]
)
def test_nothing_goes_unless_it_is_said_and_what_would_go_is_told(data, tmp_path, caplog, settings, reason):
    with caplog.at_level(logging.INFO):
        _, left = run(
            data, tmp_path, CheckpointRetention(keep_last=1, **settings), max_epochs=1, val_check_interval=1.0
        )
    assert steps(left)[:4] == [5, 10, 15, 20]
    told = [message for message in caplog.messages if "would delete" in message]
    assert "step-00000005" in told[0]
    assert reason in told[0]


@pytest.mark.parametrize("value", ["ture", "1", "0", "y", "null", "''", "delete", "yes please"])
def test_a_typo_on_the_command_line_never_arms_deletion(value):
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(CheckpointRetention, "retention")
    with pytest.raises(ArgumentError):
        parser.parse_args([f"--retention.delete={value}"])
    assert parser.parse_args([]).retention.delete is False


@pytest.mark.parametrize("value", ["false", 1])
@pytest.mark.parametrize("name", ["delete", "dry_run"])
def test_a_typo_in_python_never_arms_deletion(data, tmp_path, name, value):
    with pytest.raises(UserError, match=rf"CheckpointRetention\.{name} is .*write true or false"):
        run(data, tmp_path, CheckpointRetention(**{"delete": True, name: value}), max_steps=1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"keep_best": 1}, "metric"), ({"budget": "ten"}, "'ten' is not a size"), ({"keep_last": 0}, "keep_last is 0")],
)
def test_settings_that_make_no_sense_are_refused_before_the_first_step(data, tmp_path, settings, message):
    with pytest.raises(UserError, match=message):
        run(data, tmp_path, CheckpointRetention(**settings), max_steps=1)
    assert not (tmp_path / "lightning_logs/version_0/checkpoints").exists()


@pytest.mark.slow
def test_a_budget_holds_and_one_smaller_than_two_checkpoints_is_refused(data, tmp_path):
    _, checkpoints = run(data, tmp_path / "measure", CheckpointRetention(), max_steps=1)
    size = checkpoints[-1].bytes
    _, left = run(data, tmp_path, CheckpointRetention(keep_last=9, budget=4 * size + 2000, delete=True), max_epochs=1)
    assert len(left) == 4
    assert sum(checkpoint.bytes for checkpoint in left) <= 4 * size + 2000
    with pytest.raises(UserError, match="smaller than two checkpoints"):
        run(data, tmp_path / "small", CheckpointRetention(budget=2 * size - 1000, delete=True))
    assert steps(list_checkpoints(tmp_path / "small/lightning_logs/version_0/checkpoints"))


def test_the_young_stay(data, tmp_path):
    _, left = run(data, tmp_path, CheckpointRetention(1, minimum_age_hours=1.0, delete=True), max_epochs=1)
    assert len(left) > 5


def test_what_an_interrupted_run_has_left_goes_and_what_it_goes_on_from_stays_until_its_own_first_save(data, tmp_path):
    _, old = run(data, tmp_path, CheckpointRetention(1), max_steps=20)
    chosen = next(checkpoint for checkpoint in old if checkpoint.step == 10)
    lists = []

    class Look(SaveCheckpoints):
        def on_train_batch_start(self, trainer, *_):
            lists.append(steps(list_checkpoints(chosen.path.parent)))
            super().on_train_batch_start(trainer)

    run(data, tmp_path, CheckpointRetention(1, delete=True), Look(5), chosen.path, max_steps=30)
    assert lists[0] == [10, 20]
    assert lists[-1] != lists[0]
    assert 10 not in lists[-1]
