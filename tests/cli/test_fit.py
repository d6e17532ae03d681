"""The command line from text to a trained autoencoder, in-process and as a process that is killed."""

import contextlib
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml

from cli import main
from lightning_modules.sparse_autoencoding import SparseAutoencoding

ROOT = Path(__file__).parents[2]


def arguments(folder, *more):
    """The main job on 6000 tokens with a small dictionary."""
    return [
        "fit",
        "--config",
        str(ROOT / "configs" / "sae.yaml"),
        *("--data.store", str(folder / "store")),
        *("--data.text.corpus.max_characters", "3000"),
        *("--data.text.max_tokens", "12000"),
        *("--data.validation_share", "0.2"),
        *("--data.batch_size", "256"),
        *("--model.autoencoder.d_sae", "96"),
        *("--model.autoencoder.k", "8"),
        *("--trainer.max_epochs", "2"),
        *("--trainer.logger.save_dir", str(folder / "runs")),
        *("--trainer.callbacks.every_n_steps", "5"),
        *more,
    ]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A folder with a finished run and what it printed."""
    folder = tmp_path_factory.mktemp("job")
    process = subprocess.run(
        [sys.executable, "main.py", *arguments(folder)], cwd=ROOT, capture_output=True, text=True, timeout=240
    )
    assert process.returncode == 0, process.stderr
    return folder, process.stdout


def weights(run):
    return torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


def test_the_main_job_extracts_trains_and_sums_up(finished):
    folder, output = finished
    assert (folder / "store" / "manifest.json").is_file()
    for label in ("FVU, held-out documents", "L0", "dead latents", "run folder", "tensorboard --logdir", "--resume"):
        assert label in output
    assert re.search(r"L0 +8\.0", output)


def test_the_run_folder_holds_config_checkpoints_and_events(finished):
    run = finished[0] / "runs" / "sae" / "version_0"
    assert list(run.glob("events.out.tfevents.*"))
    settings = yaml.safe_load((run / "config.1.yaml").read_text())
    assert settings["model"]["init_args"]["autoencoder"]["init_args"]["k"] == 8
    checkpoint = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint["hyper_parameters"]["d_in"] == 384
    model = SparseAutoencoding.load_from_checkpoint(run / "checkpoints" / "last.ckpt")
    assert model(torch.randn(5, 384))[1].shape == (5, 384)


def test_tensorboard_holds_scalars_a_density_histogram_and_a_page_of_snippets(finished):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(finished[0] / "runs" / "sae" / "version_0")).Reload()
    assert {"train/fvu", "train/l0", "train/dead", "train/loss_aux_k", "val/fvu"} <= set(events.Tags()["scalars"])
    assert events.Tags()["distributions"] == ["firing density (log10)"]
    page = events.Tensors("latents/text_summary")[-1].tensor_proto.string_val[0].decode()
    assert re.search(r"### latent \d+, on [\d.]+% of the tokens", page)
    assert re.search(r"\| [\d.]+ \| .*\*\*.+\*\*", page)


def test_a_second_fit_reuses_the_store(finished, tmp_path, capsys):
    folder, _ = finished
    before = {path: path.stat().st_mtime_ns for path in (folder / "store").rglob("*")}
    moved = arguments(folder, "--trainer.logger.save_dir", str(tmp_path), "--trainer.max_epochs", "1")
    assert main(moved) == 0
    assert {path: path.stat().st_mtime_ns for path in (folder / "store").rglob("*")} == before


def test_a_resume_sweeps_what_a_killed_save_has_left_and_keeps_older_configs(finished, tmp_path):
    folder, _ = finished
    run = tmp_path / "sae" / "version_0"
    shutil.copytree(folder / "runs" / "sae" / "version_0", run)
    (run / "checkpoints" / "last.ckpt.12345.partial").write_bytes(b"half a checkpoint")
    (run / "config.1.yaml").rename(run / "config.2.yaml")
    older = (run / "config.2.yaml").read_bytes()
    assert main([*arguments(folder, "--trainer.logger.save_dir", str(tmp_path)), "--resume", str(run)]) == 0
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["last.ckpt"]
    assert (run / "config.2.yaml").read_bytes() == older, "a saved config is never written over"
    assert (run / "config.3.yaml").is_file()


def test_validate_measures_the_last_checkpoint_of_a_run(finished, capsys):
    folder, output = finished
    assert main(["validate", *arguments(folder)[1:], "--resume", str(folder / "runs" / "sae" / "version_0")]) == 0
    measured = re.search(r"val/fvu\W+([\d.]+)", capsys.readouterr().out)
    reported = re.search(r"held-out documents +([\d.]+)", output)
    assert float(measured[1]) == pytest.approx(float(reported[1]), abs=2e-4)


def stopped(how, run, saves, command):
    """Starts a command, sends it a signal soon after its n-th save, and returns what it printed and its exit code."""
    process = subprocess.Popen(
        [sys.executable, "main.py", *command], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    seen = set()
    while len(seen) < saves and process.poll() is None:
        with contextlib.suppress(FileNotFoundError):
            seen.add((run / "checkpoints" / "last.ckpt").stat().st_mtime_ns)
        time.sleep(0.002)
    time.sleep(0.05)  # a few batches further, so that work is lost
    process.send_signal(how)
    output, _ = process.communicate()
    return output, process.returncode


@pytest.mark.slow
def test_ctrl_c_ends_with_the_line_that_goes_on_and_no_traceback(finished, tmp_path):
    run = tmp_path / "sae" / "version_0"
    command = arguments(finished[0], "--trainer.logger.save_dir", str(tmp_path), "--trainer.max_epochs", "50")
    output, code = stopped(signal.SIGINT, run, 2, command)
    assert code == 130
    assert re.search(rf"interrupted at step \d+; to go on .*--resume {run}", output)
    assert "Traceback" not in output


@pytest.mark.slow
@pytest.mark.parametrize("saves", [1, 4])
def test_killed_in_mid_epoch_and_resumed_by_the_printed_command_ends_bit_identical(finished, tmp_path, saves):
    """SIGKILL soon after the n-th save, then the command that the run printed at its start, as printed."""
    folder, _ = finished
    runs = ["--trainer.logger.save_dir", str(tmp_path / "runs"), "--trainer.max_epochs", "4"]
    straight = subprocess.run(
        [sys.executable, "main.py", *arguments(folder, *runs, "--trainer.logger.name", "straight")],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert straight.returncode == 0, straight.stderr

    run = tmp_path / "runs" / "killed" / "version_0"
    output, code = stopped(signal.SIGKILL, run, saves, arguments(folder, *runs, "--trainer.logger.name", "killed"))
    assert code == -signal.SIGKILL, "the run was over before it could be killed"

    command = re.search(r"to resume after an interruption: python (.*)", output)[1].split()
    resumed = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True)
    assert resumed.returncode == 0, resumed.stderr
    assert (run / "config.2.yaml").is_file()
    ours, theirs = weights(run), weights(tmp_path / "runs" / "straight" / "version_0")
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert not list(run.rglob("*.partial"))
