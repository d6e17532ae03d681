"""Progress, the closing table and what is saved, in real runs."""

import json
import re
from pathlib import Path

import pytest
import safetensors.torch
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import CSVLogger

from callbacks import AtomicCheckpointIO, RunSummary, SaveCheckpoints, TrainingProgress
from lightning_modules.autoencoders import TopK
from lightning_modules.members import Member
from lightning_modules.sparse_autoencoding import SparseAutoencoding
from run_store.checkpoints import list_checkpoints


def run(data, folder, callbacks, members=None, **settings):
    torch.manual_seed(0)
    model = SparseAutoencoding(TopK(24, 3), members=members)
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
    """Lists the steps that were saved."""

    def __init__(self):
        self.steps = []

    def on_save_checkpoint(self, trainer, pl_module, checkpoint):
        self.steps.append(trainer.global_step)


def checkpoints(trainer):
    return list_checkpoints(f"{trainer.log_dir}/checkpoints")


def test_a_run_is_saved_every_n_steps_and_at_the_end_of_every_epoch(data, tmp_path):
    saves = Saves()
    model, trainer = run(data, tmp_path, [SaveCheckpoints(every_n_steps=10), saves])
    batches = trainer.num_training_batches
    assert saves.steps == sorted({*range(10, 2 * batches, 10), batches, 2 * batches})
    saved = checkpoints(trainer)
    assert [checkpoint.step for checkpoint in saved] == saves.steps
    weights = safetensors.torch.load_file(saved[-1].path / "model.safetensors")
    assert torch.equal(weights["members.only.autoencoder.W_dec"], model.autoencoder.W_dec)


def test_accumulated_batches_do_not_save_a_step_twice(data, tmp_path):
    saves = Saves()
    run(data, tmp_path, [SaveCheckpoints(every_n_steps=2), saves], accumulate_grad_batches=4, max_epochs=1)
    assert saves.steps == [2, 4, 6, 7]


def test_a_finished_run_can_go_on_for_more_epochs(data, tmp_path):
    _, first = run(data, tmp_path, [SaveCheckpoints()])
    torch.manual_seed(0)
    model = SparseAutoencoding(TopK(24, 3))
    settings = {"logger": False, "enable_checkpointing": False, "plugins": [AtomicCheckpointIO()]}
    longer = Trainer(max_epochs=5, accelerator="cpu", **settings)
    longer.fit(model, data, ckpt_path=checkpoints(first)[-1].path)
    assert longer.global_step == 5 * longer.num_training_batches
    assert int(model.only.tokens_seen) == 64 * longer.global_step


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
    _, trainer = run(data, tmp_path, [RunSummary(), SaveCheckpoints()])
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


def two_members():
    return {"k3": Member(), "long-name": Member(TopK(32, 5))}


def test_of_a_sweep_the_table_has_a_row_a_member_and_the_bar_shows_the_means(data, tmp_path, capsys):
    progress = TrainingProgress(refresh_rate=1)
    model, trainer = run(data, tmp_path, [progress, RunSummary()], two_members())
    shown = progress.get_metrics(trainer, model)
    assert list(shown) == ["tokens/s", "fvu", "l0", "dead"]
    assert shown["l0"] == "4.0"
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    (head,) = (row for row in rows if row[:2] == ["member", "FVU"])
    for name, member in model.members.by_name.items():
        (row,) = (row for row in rows if row[:1] == [name])
        assert float(row[head.index("FVU")]) == pytest.approx(
            float(trainer.callback_metrics[f"{name}/val/fvu"]), abs=1e-4
        )
        assert row[-1] == str(member.autoencoder.d_sae)


def test_of_a_sweep_only_what_a_validation_has_measured_is_recorded_with_the_weights(data, tmp_path):
    _, trainer = run(data, tmp_path, [SaveCheckpoints(every_n_steps=10)], two_members())
    for checkpoint in checkpoints(trainer):
        measured = checkpoint.step % trainer.num_training_batches == 0
        assert ("k3/val/fvu" in checkpoint.metrics) == ("val/fvu" in checkpoint.metrics) == measured
        assert "k3/train/fvu" in checkpoint.metrics


def test_of_a_sweep_dead_latents_are_diagnosed_by_member(data, tmp_path, capsys):
    class KillOne(Callback):
        def on_train_start(self, trainer, pl_module):
            with torch.no_grad():
                pl_module.members["k3"].autoencoder.b_enc[:6] = -1e4

    _, trainer = run(data, tmp_path, [RunSummary(), KillOne()], two_members())
    diagnosis = json.loads((Path(trainer.log_dir) / "diagnosis.json").read_text())
    assert diagnosis["k3"]["causes"] == {"bias": list(range(6))}
    assert diagnosis["long-name"]["dead"] == 0
    printed = capsys.readouterr().out
    assert "member k3, why 6 latents are dead" in printed
    assert "member long-name, why" not in printed


class Kill(Callback):
    """Some latents never fire."""

    def __init__(self, count):
        self.count = count

    def on_train_start(self, trainer, pl_module):
        with torch.no_grad():
            pl_module.autoencoder.b_enc[: self.count] = -1e4


@pytest.mark.parametrize("count", [6, 0])
def test_dead_latents_are_diagnosed_in_the_run_folder_and_in_print_where_there_are_any(data, tmp_path, capsys, count):
    _, trainer = run(data, tmp_path, [RunSummary(), Kill(count)])
    output = capsys.readouterr().out
    diagnosis = json.loads((Path(trainer.log_dir) / "diagnosis.json").read_text())
    assert diagnosis["causes"] == ({"bias": list(range(6))} if count else {})
    assert diagnosis["reach"]["reconstruction"]["W_enc"] == ("living" if count else "all")
    assert ("why 6 latents are dead" in output) == (count > 0)
