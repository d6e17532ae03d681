"""`fit --preflight` as a person would type it: what it foresees, refuses and leaves behind."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from cli import main
from cli.main import _room_of
from cli.preflight import _without_ours
from run_store import UserError
from run_store.checkpoints import list_checkpoints
from tests.cli.jobs import ROOT, Job

PREFLIGHT = ("--preflight", "--json", "-")


def foreseen(job, *more):
    """What is printed as JSON, and the exit code with what is told beside it."""
    process = job.fit(*PREFLIGHT, *more)
    return (json.loads(process.stdout) if process.stdout else None), process


def everything(*folders):
    """Every path below, with what a change would change."""
    return {
        str(path): (path.stat().st_mtime_ns, path.stat().st_size) for folder in folders for path in folder.rglob("*")
    }


def bytes_of(*folders):
    return sum(path.stat().st_size for folder in folders for path in folder.rglob("*") if path.is_file())


def test_what_is_asked_of_preflight_is_not_asked_of_the_job():
    given = ["fit", "--config", "x", "--preflight", "--data.batch_size=3"]
    assert _without_ours(given) == (["fit", "--config", "x", "--data.batch_size=3"], None)
    assert _without_ours([*given, "--json", "a"]) == (["fit", "--config", "x", "--data.batch_size=3"], "a")
    assert _without_ours([*given, "--json=-"])[1] == "-"
    with pytest.raises(UserError, match="--json needs a file"):
        _without_ours([*given, "--json"])


def test_only_a_fit_can_be_foreseen(capsys):
    assert _room_of(["fit", "--preflight"]) == "cli.preflight"
    assert _room_of(["validate", "--preflight"]) == _room_of(["fit"]) == "cli.lightning_cli"
    assert main(["fit", "--preflight", "--json"]) == 2
    assert "--json needs a file" in capsys.readouterr().err


@pytest.fixture(scope="module")
def life(tmp_path_factory):
    """A job that is foreseen, done, and foreseen once more when it is done, and what was there at each point."""
    folder = tmp_path_factory.mktemp("life")
    job = Job(folder / "store", folder / "runs")
    before = everything(folder)
    said, first = foreseen(job)
    left = everything(folder)
    trained = job.fit()
    assert trained.returncode == 0, trained.stderr
    kept = everything(folder)
    again, second = foreseen(job)
    return {
        "job": job,
        "said": said,
        "first": first,
        "before": before,
        "left": left,
        "kept": kept,
        "again": again,
        "second": second,
        "after": everything(folder),
    }


@pytest.mark.slow
def test_steps_are_foreseen_exactly_and_bytes_within_a_fifth(life):
    job, said = life["job"], life["said"]
    assert life["first"].returncode == 0
    assert said["fits"]
    assert said["steps"] == said["total_steps"] == job.steps == job.record.progress.step
    assert said["disk_bytes"] == pytest.approx(bytes_of(job.store, job.runs / "sae"), rel=0.2)
    assert said["most_run_bytes"] >= bytes_of(job.runs / "sae") * 0.95
    stored = next(part for part in said["disk"] if part["name"] == str(job.store))
    assert stored["amount"] == pytest.approx(bytes_of(job.store), rel=0.05)
    assert said["host_bytes"] > 10**8
    assert said["device_bytes"] is None
    names = {part["name"] for part in said["times"]}
    assert {"start", f"extraction of {job.store}", "training steps", "validations", "saves", "predictions"} <= names
    assert all(part["how"] for part in said["times"] + said["memory"] + said["disk"])
    assert said["seconds"] == pytest.approx(sum(part["amount"] for part in said["times"]))


@pytest.mark.slow
def test_nothing_is_left_behind(life):
    assert life["left"] == life["before"] == {}
    assert life["after"] == life["kept"]


@pytest.mark.slow
def test_of_a_complete_run_nothing_is_foreseen(life):
    assert life["second"].returncode == 0
    assert "is complete at step" in life["again"]["nothing"]


@pytest.fixture
def copy(life, tmp_path):
    """The finished job in a folder of its own, with the same store."""
    shutil.copytree(life["job"].runs, tmp_path / "runs")
    return Job(life["job"].store, tmp_path / "runs")


@pytest.mark.slow
def test_of_a_run_that_goes_on_the_rest_is_foreseen(copy, tmp_path):
    metadata = copy.run / "metadata.json"
    metadata.write_text(json.dumps({**json.loads(metadata.read_text()), "status": "interrupted"}))
    *earlier, newest = list_checkpoints(copy.run / "checkpoints")
    shutil.rmtree(newest.path)
    before = everything(copy.runs)
    said, process = foreseen(copy, "--run.mode", "resume_if_incomplete")
    assert process.returncode == 0, process.stderr
    assert said["steps"] == copy.steps - earlier[-1].step
    assert said["total_steps"] == copy.steps
    assert not any(part["name"].startswith("extraction") for part in said["times"])
    assert everything(copy.runs) == before


@pytest.mark.slow
def test_a_job_that_takes_too_long_is_refused_with_the_numbers(copy, tmp_path):
    said, process = foreseen(copy, "--run.mode", "force_new", "--trainer.max_time", "00:00:00:00")
    assert process.returncode == 2
    assert not said["fits"]
    assert "the training needs" in process.stderr
    assert "trainer.max_time is 0.0 s" in process.stderr
    assert process.stderr.splitlines()[-1].startswith("error: ")


@pytest.mark.slow
def test_two_ranks_are_tried_together(copy):
    ranks = ("--trainer.accelerator", "cpu", "--trainer.devices", "2", "--trainer.strategy", "ddp")
    before = everything(copy.runs)
    said, process = foreseen(copy, "--run.mode", "force_new", *ranks)
    assert process.returncode == 0, process.stderr
    assert said["steps"] == copy.steps
    assert everything(copy.runs) == before


@pytest.mark.slow
def test_ctrl_c_leaves_nothing(tmp_path):
    job = Job(tmp_path / "store", tmp_path / "runs")
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    process = subprocess.Popen(
        [sys.executable, "main.py", *job.arguments("--preflight")],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    end = time.monotonic() + 120
    while not list(tmp_path.glob(".preflight-*")) and process.poll() is None and time.monotonic() < end:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_disk_without_room_for_the_trial_is_refused_as_fit_would(small_disk):
    said, process = foreseen(Job(small_disk / "store", small_disk / "runs"))
    assert (said, process.returncode) == (None, 2)
    assert "error: no space left on the disk" in process.stderr
    assert list(small_disk.iterdir()) == []
