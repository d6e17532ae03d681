"""Progress, the closing table and the last checkpoint, in real runs."""

import re

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import CSVLogger

from callbacks import AtomicCheckpointIO, LastCheckpoint, RunSummary, TrainingProgress
from lightning_modules.autoencoders import TopK
from lightning_modules.sparse_autoencoding import SparseAutoencoding


def run(data, folder, callbacks, **settings):
    torch.manual_seed(0)
    model = SparseAutoencoding(TopK(24, 3))
    trainer = Trainer(
        **{
            "max_epochs": 2,
            "accelerator": "cpu",
            "logger": CSVLogger(folder),
            "callbacks": callbacks,
            "enable_model_summary": False,
            "num_sanity_val_steps": 0,
            "plugins": [AtomicCheckpointIO()],
            **settings,
        }
    )
    trainer.fit(model, data)
    return model, trainer


class Saves(Callback):
    """Lists the steps at which last.ckpt changed."""

    def __init__(self):
        self.steps = []

    def on_save_checkpoint(self, trainer, pl_module, checkpoint):
        self.steps.append(trainer.global_step)


def test_the_last_checkpoint_is_saved_every_n_steps_and_at_the_end_of_every_epoch(data, tmp_path):
    saves = Saves()
    model, trainer = run(data, tmp_path, [LastCheckpoint(every_n_steps=10), saves])
    batches = trainer.num_training_batches
    assert saves.steps == sorted({*range(10, 2 * batches, 10), batches, 2 * batches})
    checkpoint = torch.load(tmp_path / "lightning_logs/version_0/checkpoints/last.ckpt", weights_only=True)
    assert torch.equal(checkpoint["state_dict"]["autoencoder.W_dec"], model.autoencoder.W_dec)


def test_accumulated_batches_do_not_save_a_step_twice(data, tmp_path):
    saves = Saves()
    run(data, tmp_path, [LastCheckpoint(every_n_steps=2), saves], accumulate_grad_batches=4, max_epochs=1)
    assert saves.steps == [2, 4, 6, 7]


def test_a_finished_run_can_go_on_for_more_epochs(data, tmp_path):
    _, first = run(data, tmp_path, [LastCheckpoint()])
    torch.manual_seed(0)
    model = SparseAutoencoding(TopK(24, 3))
    longer = Trainer(max_epochs=5, accelerator="cpu", logger=False, enable_checkpointing=False)
    longer.fit(model, data, ckpt_path=f"{first.log_dir}/checkpoints/last.ckpt")
    assert longer.global_step == 5 * longer.num_training_batches
    assert int(model.tokens_seen) == 64 * longer.global_step


def test_the_bar_shows_speed_quality_sparsity_and_life(data, tmp_path):
    progress = TrainingProgress(refresh_rate=1)
    model, trainer = run(data, tmp_path, [progress])
    shown = progress.get_metrics(trainer, model)
    assert list(shown) == ["tokens/s", "fvu", "l0", "dead"]
    assert shown["l0"] == "3.0"
    assert re.fullmatch(r"[\d,]+", shown["tokens/s"])
    assert re.fullmatch(r"0\.\d{4}", shown["fvu"])
    assert re.fullmatch(r"\d+\.\d\d%", shown["dead"])
    rates = trainer.logged_metrics["train/tokens_per_second"]
    assert rates > 0


def test_the_table_repeats_the_validation_and_names_the_next_command(data, tmp_path, capsys):
    _, trainer = run(data, tmp_path, [RunSummary(), LastCheckpoint()])
    output = capsys.readouterr().out
    assert "to resume after an interruption: python main.py fit --config" in output
    fvu = re.search(r"FVU, held-out documents +([\d.]+)", output)
    assert float(fvu[1]) == pytest.approx(float(trainer.callback_metrics["val/fvu"]), abs=1e-4)
    assert re.search(r"L0 +3\.0", output)
    assert f"tensorboard --logdir {trainer.log_dir}" in output
    assert f"--resume {trainer.log_dir}" in output


def test_without_checkpoints_no_resume_command_is_promised(data, tmp_path, capsys):
    run(data, tmp_path, [RunSummary()], enable_checkpointing=False)
    assert "--resume" not in capsys.readouterr().out
