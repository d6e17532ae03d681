"""Whatever ends a run: the same plain line once more goes on, and the weights end bit-identical to those of a run that
nothing happened to, or one sentence says what to do.
"""

import contextlib
import os
import random
import re
import shutil
import signal
import subprocess
import time

import pytest

from run_store.checkpoints import list_checkpoints
from tests.cli.jobs import Job, differing, wait_for

pytestmark = pytest.mark.slow
LONG = ("--trainer.max_epochs", "14")
SHORT = ("--trainer.max_epochs", "4")


def straight(finished, fork_server, tmp_path_factory, settings):
    job = Job(finished[0].store, tmp_path_factory.mktemp("straight") / "runs", settings)
    assert fork_server.start(job.arguments()).wait() == 0
    return job.run


@pytest.fixture(scope="module")
def long_run(finished, fork_server, tmp_path_factory):
    """The folder of a run of 406 steps that nothing happened to."""
    return straight(finished, fork_server, tmp_path_factory, LONG)


@pytest.fixture(scope="module")
def short_run(finished, fork_server, tmp_path_factory):
    """Of 116 steps."""
    return straight(finished, fork_server, tmp_path_factory, SHORT)


def kill_at_any_moment(started, job, chance):
    """SIGKILL while it starts, while it trains or while it saves."""
    before = job.saved()
    moment = chance.choice(["starting", "training", "training", "saving"])
    if moment == "starting":
        end = time.monotonic() + chance.uniform(0.0, 2.0)
        wait_for(lambda: time.monotonic() > end or len(job.saved() - before) > 2, started)
    elif moment == "training":
        saves = chance.randint(1, 3)
        wait_for(lambda: len(job.saved() - before) >= saves, started)
        time.sleep(chance.uniform(0.0, 0.06))
    else:
        wait_for(lambda: list(job.runs.glob("*/*/v*/checkpoints/*.partial")), started, pause=0)
    started.send(signal.SIGKILL)
    return moment


def test_killed_twenty_times_at_random_moments(job, fork_server, long_run):
    job.settings = LONG
    chance, killed = random.Random(4), []
    for _ in range(20):
        started = fork_server.start(job.arguments())
        moment = kill_at_any_moment(started, job, chance)
        assert started.wait() == -signal.SIGKILL, f"the run was over before it was killed: {started.output[-2000:]}"
        killed.append(moment)
    last = fork_server.start(job.arguments())
    assert last.wait() == 0, last.output
    assert "going on with" in last.output
    assert differing(job.run, long_run) == []
    assert job.record.status == "complete"
    assert len(job.record.attempts) <= 21
    assert not list(job.run.rglob("*.partial"))


@pytest.mark.parametrize(("how", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_sigterm_and_ctrl_c_save_the_step_that_was_reached(job, fork_server, short_run, how, code):
    job.settings = SHORT
    started = fork_server.start(job.arguments())
    wait_for(lambda: len(job.saved()) >= 2, started)
    time.sleep(0.03)
    started.send(how)
    assert started.wait() == code, started.output
    record = job.record
    assert record.status == record.attempts[-1].status == "interrupted"
    reached = int(re.search(r"interrupted at step (\d+)", started.output)[1])
    assert list_checkpoints(job.run / "checkpoints")[-1].step == reached == record.progress.step
    assert "Traceback" not in started.output

    again = fork_server.start(job.arguments())
    assert again.wait() == 0, again.output
    assert f"from step {reached} " in again.output
    assert differing(job.run, short_run) == []


def test_sigterm_before_training_begins_leaves_a_run_that_begins_again(job, fork_server, short_run):
    job.settings = SHORT
    started = fork_server.start(job.arguments())
    wait_for(lambda: list(job.runs.glob("*/*/v1/metadata.json")), started)
    started.send(signal.SIGTERM)
    assert started.wait() in (143, -signal.SIGTERM), started.output  # before the handler is there the kernel ends it
    again = fork_server.start(job.arguments())
    assert again.wait() == 0, again.output
    assert re.search(r"beginning .* again|going on with", again.output)
    assert differing(job.run, short_run) == []


def killed_while_saving(job, fork_server, temporary):
    """Starts the job and kills it once a checkpoint is being written; whether it left an unfinished one."""
    started, known = fork_server.start(job.arguments(), TMPDIR=temporary), job.saved()

    def is_saving():
        return job.saved() - known and list(job.runs.glob("*/*/v1/checkpoints/*.partial"))

    wait_for(is_saving, started, pause=0)
    started.send(signal.SIGKILL)
    assert started.wait() == -signal.SIGKILL
    return bool(list(job.runs.glob("*/*/v1/checkpoints/*.partial")))


def test_killed_inside_a_save_with_temporary_files_on_another_file_system(job, fork_server, short_run, disk):
    job.settings = SHORT
    elsewhere = disk("16m")
    assert os.stat(elsewhere).st_dev != os.stat(job.store).st_dev
    inside = sum(killed_while_saving(job, fork_server, str(elsewhere)) for _ in range(4))
    assert inside, "no kill fell inside a save"
    last = fork_server.start(job.arguments(), TMPDIR=str(elsewhere))
    assert last.wait() == 0, last.output
    assert differing(job.run, short_run) == []
    assert not list(job.run.rglob("*.partial"))


def test_a_full_disk_is_one_sentence_and_costs_nothing_that_was_saved(finished, fork_server, short_run, disk):
    room = disk("12m")
    job = Job(finished[0].store, room / "runs", SHORT)
    started = fork_server.start(job.arguments())
    wait_for(lambda: len(job.saved()) >= 2, started)
    filler = room / "filler"
    with open(filler, "wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"\0" * 4096)
    assert started.wait() == 2, started.output
    # a progress bar may stand before it in the same line
    errors = re.findall(r"error: .*", started.output)
    assert len(errors) == 1, started.output
    assert re.search(r"free some space there", errors[0])
    assert "Traceback" not in started.output

    filler.unlink()
    again = fork_server.start(job.arguments())
    assert again.wait() == 0, again.output
    assert "going on with" in again.output
    assert differing(job.run, short_run) == []


def test_a_corrupted_newest_checkpoint_falls_back_to_the_one_before(job, fork_server, short_run):
    job.settings = SHORT
    started = fork_server.start(job.arguments())
    wait_for(lambda: len(job.saved()) >= 2 and "step-00000005" not in job.saved(), started)
    started.send(signal.SIGKILL)
    assert started.wait() == -signal.SIGKILL
    before, damaged = (checkpoint.path for checkpoint in list_checkpoints(job.run / "checkpoints")[-2:])
    content = bytearray((damaged / "model.safetensors").read_bytes())
    content[-100] ^= 1
    (damaged / "model.safetensors").write_bytes(content)

    again = fork_server.start(job.arguments())
    assert again.wait() == 0, again.output
    warning = next(line for line in again.output.splitlines() if line.startswith("warning: "))
    assert str(damaged) in warning
    assert str(before) in warning
    assert differing(job.run, short_run) == []


def test_ten_starts_at_once_train_one_run(job, fork_server):
    started = [fork_server.start(job.arguments()) for _ in range(10)]
    codes = [process.wait() for process in started]
    assert set(codes) <= {0, 2}
    trained = [process for process in started if "FVU, held-out documents" in process.output]
    assert len(trained) == 1
    refused = [process.output for process, code in zip(started, codes, strict=True) if code == 2]
    assert all(re.search(r"^error: process \d+ on .* is working on ", output, re.MULTILINE) for output in refused)
    assert job.run.name == "v1"
    assert job.record.status == "complete"


def test_ten_forced_starts_at_once_train_ten_runs_of_the_same_bits(job, fork_server):
    job.settings = ("--run.mode", "force_new", "--trainer.max_epochs", "1", "--trainer.limit_train_batches", "6")
    started = [fork_server.start(job.arguments()) for _ in range(10)]
    assert [process.wait() for process in started] == [0] * 10, [process.output for process in started]
    assert sorted(folder.name for folder in job.folders()) == sorted(f"v{number}" for number in range(1, 11))
    first, *others = job.folders()
    assert all(differing(first, other) == [] for other in others)


@pytest.fixture
def disk(tmp_path):
    """disk("12m") → a folder on a disk of its own. Only root may mount one; others skip."""
    mounted = []

    def mount(size):
        folder = tmp_path / f"disk-{len(mounted)}"
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
        if not shutil.which("mount") or subprocess.run(command, capture_output=True).returncode:
            pytest.skip("needs the right to mount a small disk")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
