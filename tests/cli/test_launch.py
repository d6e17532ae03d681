"""Several processes, one run: whoever starts them, they take the same folder and the same decision."""

import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from run_store.checkpoints import list_checkpoints
from tests.cli.jobs import ROOT, differing

pytestmark = pytest.mark.slow
TWO = ("--trainer.devices", "2", "--trainer.accelerator", "cpu", "--trainer.strategy", "ddp")


def free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return str(taken.getsockname()[1])


def by_lightning(arguments):
    return [subprocess.Popen([sys.executable, "main.py", *arguments], **pipes())]


def by_torchrun(arguments):
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", free_port()]
    return [subprocess.Popen([*command, "main.py", *arguments], **pipes())]


def by_slurm(arguments):
    """Processes with the environment that srun gives them."""
    common = {
        "SLURM_JOB_ID": "4711",
        "SLURM_JOB_NAME": "train",
        "SLURM_NTASKS": "2",
        "SLURM_NTASKS_PER_NODE": "2",
        "SLURM_NNODES": "1",
        "SLURM_NODEID": "0",
        "SLURM_NODELIST": "127.0.0.1",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": free_port(),
    }
    return [
        subprocess.Popen(
            [sys.executable, "main.py", *arguments],
            **pipes({**common, "SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)}),
        )
        for rank in (1, 0)
    ]


def pipes(more=None):
    return {
        "cwd": ROOT,
        "env": {**os.environ, **(more or {})},
        "stdout": subprocess.PIPE,
        "stderr": subprocess.STDOUT,
        "text": True,
    }


def results(processes):
    """Exit codes and everything printed."""
    outputs = [process.communicate(timeout=240)[0] for process in processes]
    return [process.returncode for process in processes], "".join(outputs)


@pytest.mark.parametrize("launch", [by_lightning, by_torchrun, by_slurm])
def test_two_processes_train_one_run_and_skip_it_together(job, launch):
    codes, output = results(launch(job.arguments(*TWO)))
    assert set(codes) == {0}, output
    assert output.count("starting a new run") == 1
    assert job.record.status == "complete"
    states = len(job.record.attempts)
    assert states == 1
    codes, output = results(launch(job.arguments(*TWO)))
    assert set(codes) == {0}, output
    assert output.count("is complete at step") == 1


def test_two_processes_killed_and_started_again_end_bit_identical(job, tmp_path):
    straight = type(job)(job.store, tmp_path / "straight")
    codes, output = results(by_lightning(straight.arguments(*TWO)))
    assert codes == [0], output
    (process,) = by_lightning(job.arguments(*TWO))
    while len(job.saved()) < 2 and process.poll() is None:
        time.sleep(0.002)
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 143
    process.communicate()
    assert job.record.status == "interrupted"
    assert list_checkpoints(job.run / "checkpoints")[-1].step == job.record.progress.step < job.steps
    codes, output = results(by_lightning(job.arguments(*TWO)))
    assert codes == [0], output
    assert differing(job.run, straight.run) == []


def test_a_refusal_ends_all_processes(job):
    codes, output = results(by_slurm(job.arguments(*TWO, "--run.source", "run", "--run.path", "nowhere")))
    assert codes == [2, 2], output
    assert output.count("error: ") == 1


def test_the_signal_of_slurm_saves_requeues_and_the_requeued_job_goes_on(job, finished, tmp_path, fork_server):
    """scontrol is a script here that notes what it was asked."""
    (tmp_path / "bin").mkdir()
    scontrol = tmp_path / "bin" / "scontrol"
    scontrol.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/asked\n')
    scontrol.chmod(0o755)
    environment = {
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
        "SLURM_JOB_ID": "4711",
        "SLURM_JOB_NAME": "train",
        "SLURM_NTASKS": "1",
        "SLURM_NTASKS_PER_NODE": "1",
        "SLURM_NODEID": "0",
        "SLURM_PROCID": "0",
        "SLURM_LOCALID": "0",
        "SLURM_NODELIST": "127.0.0.1",
    }
    started = fork_server.start(job.arguments(), **environment)
    while len(job.saved()) < 2 and started.is_alive():
        time.sleep(0.002)
    started.send(signal.SIGUSR1)
    assert started.wait() == 128 + signal.SIGUSR1, started.output
    assert (tmp_path / "asked").read_text() == "requeue 4711\n"
    assert job.record.status == "interrupted"
    assert not list(job.run.rglob("hpc_ckpt*"))
    again = fork_server.start(job.arguments(), **environment, SLURM_RESTART_COUNT="1")
    assert again.wait() == 0, again.output
    assert "going on with" in again.output
    assert differing(job.run, finished[0].run) == []
