from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.encoder_job import train_encoder
from tests.cli.jobs import ROOT, ForkServer, Job


@pytest.fixture(scope="session")
def fork_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForkServer]:
    process = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("fork_server.py"))],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    server = ForkServer(tmp_path_factory.mktemp("output"), process)
    yield server
    process.stdin.close()
    process.wait()


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Job, str]:
    """A job with one finished run, and what it printed. It has made the store that the others read."""
    folder = tmp_path_factory.mktemp("job")
    job = Job(folder / "store", folder / "runs")
    process = job.fit()
    assert process.returncode == 0, process.stderr
    return job, process.stdout


@pytest.fixture
def job(finished: tuple[Job, str], tmp_path: Path) -> Job:
    """A job that has the store and no run yet."""
    return Job(finished[0].store, tmp_path / "runs")


@pytest.fixture(scope="session")
def encoder_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of all runs, one of them a finished fine-tuning; beside it job.yaml, its settings."""
    return train_encoder(tmp_path_factory.mktemp("encoder"))
