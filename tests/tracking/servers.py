"""A real MLflow server on a free port of this machine."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def end(process: subprocess.Popen[bytes]) -> None:
    """Kills a server and its workers, unless that is done."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(30)


@contextmanager
def mlflow_server(folder: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """URL and process of a server that keeps everything in an SQLite database in `folder`."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    store = ["--backend-store-uri", f"sqlite:///{folder / 'server.sqlite'}"]
    artifacts = ["--default-artifact-root", str(folder / "artifacts")]
    place = ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    with open(folder / "server.log", "wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "server", *store, *artifacts, *place],
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
            start_new_session=True,  # its workers end with it
        )
    try:
        for _ in range(600):
            if process.poll() is not None:
                break
            try:
                urlopen(f"{url}/health", timeout=2).read()
                break
            except (URLError, OSError):
                time.sleep(0.2)
        else:
            pytest.fail((folder / "server.log").read_text())
        assert process.poll() is None, (folder / "server.log").read_text()
        yield url, process
    finally:
        end(process)
