"""Several processes, one run: whoever starts them, they take the same folder and one decision, and end together."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from run_store.checkpoints import list_checkpoints
from tests.cli.jobs import ROOT, differing
from tests.distributed.ranks import free_port

pytestmark = pytest.mark.slow
ON_CPU = ("--trainer.accelerator", "cpu", "--trainer.strategy", "ddp")
TWO = ("--trainer.devices", "2", *ON_CPU)
NODES = ("--trainer.devices", "1", "--trainer.num_nodes", "2", *ON_CPU)
TIME_TO_END = 60
"""Seconds, that the issue of ranks that are killed allows."""


def by_lightning(arguments):
    return [subprocess.Popen([sys.executable, "main.py", *arguments], **pipes())]


def by_torchrun(arguments):
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc_per_node",
        "2",
        "--master_port",
        str(free_port()),
    ]
    return [subprocess.Popen([*command, "main.py", *arguments], **pipes())]


def by_torchrun_on_nodes(arguments):
    """Two agents on loopback, each with one process."""
    port = str(free_port())
    meeting = ["--nnodes", "2", "--nproc_per_node", "1", "--master_addr", "127.0.0.1", "--master_port", port]
    command = [sys.executable, "-m", "torch.distributed.run", *meeting]
    return [
        subprocess.Popen([*command, "--node_rank", str(node), "main.py", *arguments], **pipes()) for node in range(2)
    ]


def of_slurm(tasks):
    """What srun sets, but for the number of the task."""
    return {
        "SLURM_JOB_ID": "4711",
        "SLURM_JOB_NAME": "train",
        "SLURM_NTASKS": str(tasks),
        "SLURM_NTASKS_PER_NODE": str(tasks),
        "SLURM_NNODES": "1",
        "SLURM_NODEID": "0",
        "SLURM_NODELIST": "127.0.0.1",
    }


def on_nodes(fork_server, arguments, nodes=2):
    """Lightning's own launch on two nodes, which are both this machine: the processes of as many as come."""
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    return [fork_server.start(arguments, NODE_RANK=str(node), **meeting) for node in range(nodes)]


def by_slurm(fork_server, arguments):
    """Processes with the environment that srun gives them."""
    common = {**of_slurm(2), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    return [fork_server.start(arguments, **common, SLURM_PROCID=str(rank), SLURM_LOCALID=str(rank)) for rank in (1, 0)]


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


def ended(started):
    """Exit codes and everything printed, of processes that must come to their end soon."""
    end = time.monotonic() + TIME_TO_END
    for process in started:
        while process.is_alive() and time.monotonic() < end:
            time.sleep(0.02)
    running = [process for process in started if process.is_alive()]
    for process in running:
        process.send(signal.SIGKILL)
    output = "".join(process.output for process in started)
    assert not running, output
    return [process.wait() for process in started], output


def ranks_of(processes):
    """Process numbers of the trainings among some processes and those that they have started, by rank."""
    found = {}
    for process in processes:
        for pid in (process.pid, *descendants(process.pid)):
            command, environment = (
                Path(f"/proc/{pid}/{what}").read_text().split("\0") for what in ("cmdline", "environ")
            )
            variables = dict(entry.split("=", 1) for entry in environment if "=" in entry)
            if Path(command[1]).name == "main.py" or "main.py" in command[:3]:
                found[int(variables.get("RANK") or variables.get("LOCAL_RANK") or 0)] = pid
    return found


def descendants(pid):
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        yield int(child)
        yield from descendants(int(child))


def until_saved(job, is_running, steps=2):
    while len(job.saved()) < steps and is_running():
        time.sleep(0.002)


def test_tasks_of_slurm_train_one_run_and_skip_it_together(job, fork_server):
    codes, output = ended(by_slurm(fork_server, job.arguments(*TWO)))
    assert codes == [0, 0], output
    assert output.count("starting a new run") == 1
    assert job.record.status == "complete"
    assert len(job.record.attempts) == 1
    codes, output = ended(by_slurm(fork_server, job.arguments(*TWO)))
    assert codes == [0, 0], output
    assert output.count("is complete at step") == 1


@pytest.mark.parametrize(("launch", "victim"), [(by_lightning, 1), (by_torchrun, 0), (by_torchrun_on_nodes, 1)])
def test_a_killed_rank_ends_the_job_in_one_sentence_and_the_same_line_resumes(job, launch, victim):
    arguments = job.arguments(*(NODES if launch is by_torchrun_on_nodes else TWO))
    processes = launch(arguments)
    until_saved(job, lambda: all(process.poll() is None for process in processes))
    os.kill(ranks_of(processes)[victim], signal.SIGKILL)
    outputs = [process.communicate(timeout=TIME_TO_END)[0] for process in processes]
    assert all(process.returncode for process in processes)
    assert "".join(outputs).count("error: ") == 1
    assert f"error: rank {victim} of 2 " in "".join(outputs)
    codes, output = results(launch(arguments))
    assert set(codes) == {0}, output
    assert output.count("going on with") == 1
    assert job.record.status == "complete"
    codes, output = results(launch(arguments))
    assert set(codes) == {0}, output
    assert output.count("is complete at step") == 1


def test_one_of_two_is_told_to_end_and_the_resumed_run_ends_bit_identical(job, fork_server, tmp_path):
    straight = type(job)(job.store, tmp_path / "straight")
    both = on_nodes(fork_server, straight.arguments(*NODES))
    nodes = on_nodes(fork_server, job.arguments(*NODES))
    until_saved(job, nodes[0].is_alive)
    nodes[1].send(signal.SIGTERM)
    codes, output = ended(nodes)
    assert codes == [143, 143], output
    assert job.record.status == "interrupted"
    assert list_checkpoints(job.run / "checkpoints")[-1].step == job.record.progress.step < job.steps
    for started in (both, on_nodes(fork_server, job.arguments(*NODES))):
        codes, output = ended(started)
        assert codes == [0, 0], output
    assert differing(job.run, straight.run) == []


def test_a_refusal_ends_all_processes(job, fork_server):
    codes, output = ended(by_slurm(fork_server, job.arguments(*TWO, "--run.source", "run", "--run.path", "nowhere")))
    assert codes == [2, 2], output
    assert output.count("error: ") == 1


# ---- two nodes, whose first processes a person starts


def in_trouble(rank, step, kind):
    """One more callback of the job (`tests.cli.trouble`)."""
    settings = f"{{rank: {rank}, step: {step}, kind: {kind}}}"
    return "--trainer.callbacks+", f"{{class_path: tests.cli.trouble.Trouble, init_args: {settings}}}"


def test_two_nodes_train_one_run_and_when_its_first_process_is_killed_the_same_line_resumes(job, fork_server):
    nodes = on_nodes(fork_server, job.arguments(*NODES))
    until_saved(job, nodes[0].is_alive)
    nodes[0].send(signal.SIGKILL)
    codes, output = ended(nodes)
    assert codes == [-signal.SIGKILL, 2], output
    assert output.count("error: ") == 1
    assert "error: rank 0 of 2 is gone" in output
    codes, output = ended(on_nodes(fork_server, job.arguments(*NODES)))
    assert codes == [0, 0], output
    assert output.count("going on with") == 1
    assert job.record.status == "complete"
    assert len(job.record.attempts) == 2


def test_ctrl_c_stops_all_ranks_with_the_same_step_which_is_saved(job, fork_server):
    nodes = on_nodes(fork_server, job.arguments(*NODES))
    until_saved(job, nodes[0].is_alive)
    for node in nodes:
        node.send(signal.SIGINT)
    codes, output = ended(nodes)
    assert codes == [130, 130], output
    assert output.count("stopping after this step") == 1
    assert "error" not in output
    assert job.record.status == "interrupted"
    assert list_checkpoints(job.run / "checkpoints")[-1].step == job.record.progress.step < job.steps


@pytest.mark.parametrize(
    ("rank", "kind", "sentence"),
    [
        (1, "mistake", "this cannot work: set it otherwise"),
        (0, "bug", "KeyError: 'nobody has it'"),
        (1, "bug", "KeyError: 'nobody has it'"),
    ],
)
def test_what_goes_wrong_on_one_rank_is_told_once_and_recorded(job, fork_server, rank, kind, sentence):
    codes, output = ended(on_nodes(fork_server, job.arguments(*NODES, *in_trouble(rank, 7, kind))))
    assert all(codes), output
    assert output.count(sentence) == 1
    assert output.count("Traceback") == (kind == "bug")
    assert output.count("error: ") == (kind == "mistake" or rank == 1)
    assert job.record.status == "failed"
    assert ("nobody has it" if kind == "bug" else sentence) in job.record.error.message
    assert {"step-00000005"} <= job.saved()


def test_a_full_disk_ends_both_ranks_in_one_sentence(job, fork_server, small_disk):
    codes, output = ended(on_nodes(fork_server, job.arguments(*NODES, "--run.folder", str(small_disk / "runs"))))
    assert codes == [2, 2], output
    assert output.count("error: ") == 1
    assert "small_disk" in output


def test_a_main_thread_that_nothing_wakes_does_not_outlive_another_rank(job, fork_server, tmp_path):
    """It sleeps, or waits for a node that does not come."""
    absent = type(job)(job.store, tmp_path / "absent")
    alone = on_nodes(fork_server, absent.arguments(*NODES, "--run.patience", "2"), nodes=1)
    nodes = on_nodes(fork_server, job.arguments(*NODES, *in_trouble(0, 7, "sleep")))
    while "fell asleep" not in nodes[0].output and nodes[0].is_alive():
        time.sleep(0.01)
    nodes[1].send(signal.SIGKILL)
    codes, output = ended(nodes)
    assert codes == [2, -signal.SIGKILL]
    assert output.count("error: ") == 1
    for sentence, said, recorded in (
        ("rank 1 of 2 (process ", output, job),
        ("rank 1 of 2 did not come within 2 s: start the missing processes", ended(alone)[1], absent),
    ):
        assert said.count("error: ") == 1
        assert f"error: {sentence}" in said
        assert recorded.record.status == "failed"
        assert recorded.record.error.message.startswith(sentence)


# ---- mistakes


def test_a_batch_that_cannot_be_shared_is_refused_in_one_sentence(job, fork_server):
    codes, output = ended(on_nodes(fork_server, job.arguments(*NODES, "--data.batch_size", "255")))
    assert codes == [2, 2], output
    assert output.count("error: ") == 1
    assert "batch_size 255 cannot be shared evenly by 2 devices" in output


def test_a_node_that_cannot_reach_the_first_says_where_it_looked(job, fork_server):
    arguments = job.arguments(*NODES, "--run.patience", "2")
    alone = fork_server.start(arguments, NODE_RANK="1", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(free_port()))
    (code,), output = ended([alone])
    assert code == 2, output
    assert "error: rank 1 cannot reach rank 0 at 127.0.0.1:" in output


def test_processes_that_would_each_train_alone_are_refused(job, fork_server):
    codes, output = ended(by_slurm(fork_server, job.arguments("--trainer.devices", "1")))
    assert codes == [2, 2], output
    assert output.count("error: ") == 1
    assert "trainer.devices is 1, and srun has started 2 processes a node: set --trainer.devices 2" in output


def test_more_devices_than_there_are_is_one_sentence(job, fork_server):
    asked = ("--trainer.accelerator", "gpu", "--trainer.devices", "2")
    (code,), output = ended([fork_server.start(job.arguments(*asked))])
    assert code == 2, output
    assert output.count("error: ") == 1
    assert "Traceback" not in output


# ---- SLURM


@pytest.fixture
def cluster(tmp_path):
    """The variables of a job of two tasks on one node, and programs that do what srun and scontrol do there."""
    (tmp_path / "bin").mkdir()
    srun = f"""#!{sys.executable}
import os, signal, subprocess, sys
command = [argument for argument in sys.argv[1:] if not argument.startswith("--kill")]
tasks = [
    subprocess.Popen(command, env={{**os.environ, "SLURM_PROCID": str(task), "SLURM_LOCALID": str(task)}})
    for task in range(int(os.environ["SLURM_NTASKS"]))
]
signal.signal(signal.SIGUSR1, lambda *_: [task.send_signal(signal.SIGUSR1) for task in tasks])
sys.exit(max(task.wait() for task in tasks))
"""
    programs = {
        "srun": srun,
        "scontrol": f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n',
        "python": f'#!/bin/sh\nexec {sys.executable} "$@"\n',
    }
    for name, text in programs.items():
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)
    return {**of_slurm(2), "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}


def test_the_sbatch_file_trains_saves_before_its_time_is_up_and_goes_on_when_it_is_queued_again(job, cluster, tmp_path):
    config, *settings = job.arguments(*ON_CPU)[2:]
    command = ["bash", "configs/trainer/slurm.sbatch", config, *settings]
    batch = subprocess.Popen(command, **pipes(cluster))
    until_saved(job, lambda: batch.poll() is None)
    batch.send_signal(signal.SIGUSR1)
    (code,), output = results([batch])
    assert code == 128 + signal.SIGUSR1, output
    assert "error" not in output
    assert (tmp_path / "asked").read_text() == "requeue 4711\n"
    assert job.record.status == "interrupted"
    again = subprocess.Popen(command, **pipes({**cluster, "SLURM_RESTART_COUNT": "1"}))
    (code,), output = results([again])
    assert code == 0, output
    assert "going on with" in output
    assert job.record.status == "complete"
    assert job.record.execution["parallelism"]["devices"] == 2


def test_the_signal_of_slurm_saves_requeues_and_the_requeued_job_goes_on(job, finished, tmp_path, fork_server):
    """scontrol is a script here that notes what it was asked."""
    (tmp_path / "bin").mkdir()
    scontrol = tmp_path / "bin" / "scontrol"
    scontrol.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/asked\n')
    scontrol.chmod(0o755)
    environment = {
        **of_slurm(1),
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
        "SLURM_PROCID": "0",
        "SLURM_LOCALID": "0",
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
