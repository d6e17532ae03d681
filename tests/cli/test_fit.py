"""The command line from text to a trained autoencoder, and what a second `fit` does."""

import json
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
import yaml

from cli import main
from lightning_modules.sparse_autoencoding import SparseAutoencoding
from run_store.completion import completion_of
from run_store.record import read_record
from tests.cli.jobs import ROOT, Job, differing, newest, wait_for


@pytest.fixture
def copy(finished, tmp_path):
    """A finished job in a folder of its own, with the same store."""
    job, _ = finished
    shutil.copytree(job.runs, tmp_path / "runs")
    return Job(job.store, tmp_path / "runs")


def set_status(run, status):
    content = json.loads((run / "metadata.json").read_text())
    (run / "metadata.json").write_text(json.dumps({**content, "status": status}))


def test_the_main_job_extracts_trains_and_sums_up(finished):
    job, output = finished
    assert (job.store / "manifest.json").is_file()
    for label in ("FVU, held-out documents", "L0", "dead latents", "run folder", "tensorboard --logdir", "--resume"):
        assert label in output
    assert re.search(r"L0 +8\.0", output)


def test_the_first_line_is_the_decision_with_its_reason(finished):
    job, output = finished
    assert output.splitlines()[0] == (f"starting a new run, since there is no run of these settings yet in {job.run}")


def test_the_run_folder_holds_config_checkpoints_and_events(finished):
    run = finished[0].run
    assert re.fullmatch(r"sae/spec-[0-9a-f]{8}_exec-[0-9a-f]{8}/v1", str(run.relative_to(finished[0].runs)))
    assert list(run.glob("events.out.tfevents.*"))
    settings = yaml.safe_load((run / "config.1.yaml").read_text())
    assert settings["model"]["init_args"]["autoencoder"]["init_args"]["k"] == 8
    checkpoint = torch.load(newest(run) / "state.ckpt", weights_only=True)
    assert list(checkpoint["hyper_parameters"]["shapes"].values()) == [384]
    model = SparseAutoencoding.load_from_checkpoint(newest(run))
    assert model(torch.randn(5, 384))[1][0].shape == (5, 384)


def test_the_record_says_what_was_made_of_what(finished):
    job, _ = finished
    record = job.record
    assert record.status == "complete"
    assert completion_of(job.run).complete
    assert {f"checkpoints/{newest(job.run).name}/model.safetensors", "config.1.yaml", "metrics.json"} <= {
        output.name for output in record.outputs
    }
    assert record.lineage.store == str(job.store)
    assert record.lineage.store_sha256
    assert (record.model, record.dataset, record.progress.step) == ("TopK", "store", job.steps)
    assert record.metrics["val/fvu"] == json.loads((job.run / "metrics.json").read_text())["val/fvu"]
    assert record.git["commit"] or record.git["files_sha256"]
    assert {"torch", "lightning"} <= record.packages.keys()
    assert [event["status"] for event in record.history() if event["event"] in ("created", "attempt", "status")] == [
        "pending",
        "initialising",
        "running",
        "complete",
    ]


def test_tensorboard_holds_scalars_a_density_histogram_and_a_page_of_snippets(finished):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(finished[0].run)).Reload()
    assert {"train/fvu", "train/l0", "train/dead", "train/loss_aux_k", "val/fvu"} <= set(events.Tags()["scalars"])
    density, *latents = sorted(events.Tags()["distributions"], key=lambda tag: tag.startswith("activations/latent "))
    assert density == "firing density (log10)"
    assert latents
    assert all(re.fullmatch(r"activations/latent \d+", tag) for tag in latents)
    page = events.Tensors("latents/text_summary")[-1].tensor_proto.string_val[0].decode()
    assert re.search(r"### latent \d+, on [\d.]+% of the tokens", page)
    assert re.search(r"\| [\d.]+ \| .*\*\*.+\*\*", page)


@pytest.mark.slow
def test_a_second_run_reuses_the_store(job, capsys):
    before = {path: path.stat().st_mtime_ns for path in job.store.rglob("*")}
    assert main(job.arguments("--trainer.max_epochs", "1")) == 0
    assert {path: path.stat().st_mtime_ns for path in job.store.rglob("*")} == before


def test_a_finished_run_is_skipped_without_a_model_weights_or_data(copy, capsys):
    """Neither the store nor weights that could be loaded are there, and nothing of the run changes."""
    gone, steps = Job(copy.store.with_name("deleted"), copy.runs), copy.steps
    before = {path: path.stat().st_mtime_ns for path in copy.run.rglob("*")}
    assert main(gone.arguments()) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed == [f"{copy.run} is complete at step {steps}; --run.mode force_new starts another"]
    assert {path: path.stat().st_mtime_ns for path in copy.run.rglob("*")} == before


@pytest.mark.slow
def test_what_is_lost_of_a_finished_run_is_trained_again(copy, capsys, finished):
    damaged = newest(copy.run)
    (damaged / "state.ckpt").write_bytes((damaged / "state.ckpt").read_bytes()[:-1])
    before = newest(copy.run)
    assert main(copy.arguments()) == 0
    printed = capsys.readouterr()
    assert f"warning: {damaged} is damaged" in printed.err
    assert f"going on from the one before, {before}" in printed.err
    assert "state.ckpt has" in printed.out
    assert differing(copy.run, finished[0].run) == []
    assert completion_of(copy.run).complete


@pytest.mark.slow
def test_a_resume_sweeps_what_a_killed_save_has_left_and_keeps_older_configs(copy, finished):
    run = copy.run
    set_status(run, "running")
    kept = sorted(path.name for path in (run / "checkpoints").iterdir())
    half = run / "checkpoints" / f"step-00000099.{2**22 + 1}.partial"  # no process has so high a number
    half.mkdir()
    (half / "model.safetensors").write_bytes(b"half a checkpoint")
    older = (run / "config.1.yaml").read_bytes()
    assert main(copy.arguments("--resume", str(run))) == 0
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == kept
    assert (run / "config.1.yaml").read_bytes() == older, "a saved config is never written over"
    assert (run / "config.2.yaml").is_file()
    assert [event["event"] for event in copy.record.history()].count("attempt") == 2


def test_a_resume_with_other_settings_is_refused_with_what_differs(copy, capsys):
    set_status(copy.run, "interrupted")
    assert main(copy.arguments("--resume", str(copy.run), "--trainer.max_epochs", "4")) == 2
    assert "optimisation.max_epochs is 2 there and 4 here" in capsys.readouterr().err


def test_a_resume_on_another_store_is_refused(copy, tmp_path, capsys):
    set_status(copy.run, "interrupted")
    other = shutil.copytree(copy.store, tmp_path / "other")
    manifest = json.loads((other / "manifest.json").read_text())
    (other / "manifest.json").write_text(json.dumps(manifest) + "\n\n")
    assert main(Job(other, copy.runs).arguments()) == 2
    assert f"was trained on another activation store than the one that is in {other} now" in capsys.readouterr().err
    assert copy.record.status == "failed"


@pytest.mark.slow
def test_force_new_starts_the_next_variant_and_toggled_identity_another_folder(copy, capsys):
    short = ("--trainer.limit_train_batches", "2", "--trainer.max_epochs", "1")
    assert main(copy.arguments(*short)) == 0
    assert main(copy.arguments(*short, "--run.mode", "force_new")) == 0
    assert main(copy.arguments(*short, "--run.mode", "reuse_if_exists")) == 0
    assert main(copy.arguments(*short, "--run.identity.determinism", "false")) == 0
    new = [folder for folder in copy.folders() if folder != copy.folders()[0]]
    by_identity = {}
    for folder in new:
        by_identity.setdefault(folder.parent, []).append(folder.name)
    assert sorted(map(sorted, by_identity.values())) == [["v1"], ["v1", "v2"]]


@pytest.mark.first_is_fast
@pytest.mark.parametrize("source", ["run", "path", "best"])
def test_a_new_run_starts_from_the_weights_of_another(copy, source, capsys):
    parent = copy.run
    path = {"run": str(parent), "path": str(newest(parent)), "best": None}[source]
    named = () if path is None else ("--run.path", path)
    more = ("--trainer.max_steps", "1", "--run.source", source, *named)
    assert main(copy.arguments(*more)) == 0
    assert f"with the weights of {newest(parent)}" in capsys.readouterr().out
    (child,) = (folder for folder in copy.folders() if folder != parent)
    lineage = read_record(child).lineage
    assert lineage.parent_run == read_record(parent).id
    assert lineage.parent_checkpoint == str(newest(parent))
    # its first step begins where the other run ended; from fresh weights it would begin above 0.8
    assert read_record(child).metrics["train/fvu"] < 0.6
    state = SparseAutoencoding.load_from_checkpoint(newest(child))
    assert int(state.only.tokens_seen) == 256, "counters say what this training has seen"


@pytest.mark.slow
def test_validate_measures_the_newest_checkpoint_of_a_run(finished, capsys):
    job, output = finished
    reported = re.search(r"held-out documents +([\d.]+)", output)
    for named in ((), ("--resume", str(job.run)), ("--run.path", job.record.id[:8])):
        assert main(job.arguments(*named, verb="validate")) == 0
        measured = re.search(r"val/fvu\W+([\d.]+)", capsys.readouterr().out)
        assert float(measured[1]) == pytest.approx(float(reported[1]), abs=2e-4)
    assert len(list(job.run.glob("events.out.*"))) == 1, "TensorBoard would forget the curves of the training"
    assert list((job.run / "validate").glob("events.out.*"))


def test_validate_without_a_run_says_how_to_name_one(job, capsys):
    assert main(job.arguments(verb="validate")) == 2
    assert "there is no run of these settings" in capsys.readouterr().err


@pytest.mark.slow
def test_a_mistake_that_lightning_finds_is_one_line_and_leaves_no_run(job, capsys):
    assert main(job.arguments("--trainer.enable_progress_bar", "false")) == 2
    errors = capsys.readouterr().err.splitlines()
    assert sum(line.startswith("error: ") and "enable_progress_bar" in line for line in errors) == 1
    assert main(job.arguments("--model.autoencoder.k", "500")) == 2
    assert job.folders() == []


@pytest.mark.slow
def test_a_failure_is_recorded_with_its_traceback_and_a_plain_fit_goes_on(job, capsys):
    broken = ("--model.optimizer.lr", "1e30", "--model.normalization", "null")
    assert main(job.arguments(*broken)) == 2
    record = job.record
    assert record.status == "failed"
    assert record.error.kind == "UserError"
    assert "Traceback" in record.error.traceback


@pytest.mark.slow
def test_killed_and_resumed_by_the_printed_command_ends_bit_identical(job, finished, fork_server):
    """SIGKILL soon after a save, then the command that the run printed at its start, as printed."""
    process = fork_server.start(job.arguments())
    wait_for(lambda: len(job.saved()) >= 2, process)
    time.sleep(0.05)
    process.send(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "the run was over before it could be killed"
    command = re.search(r"to resume after an interruption: python (.*)", process.output)[1].split()
    resumed = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True)
    assert resumed.returncode == 0, resumed.stderr
    assert (job.run / "config.2.yaml").is_file()
    assert differing(job.run, finished[0].run) == []
