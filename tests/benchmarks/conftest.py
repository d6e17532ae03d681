from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


class Told(NamedTuple):
    """What a bench has said."""

    json: dict[str, Any]
    table: list[list[str]]
    """Cells of every row of the tables on stderr, heads and rules apart."""
    stderr: str


@pytest.fixture
def bench(tmp_path: Path) -> Callable[..., Told]:
    """bench(name, *arguments) → what a bench says that runs quickly in a process and a folder of its own."""

    def run(name: str, *arguments: str, peers: str | None = None) -> Told:
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        environment.pop("FULGURITE_PEERS_PYTHON", None)
        if peers:
            environment["FULGURITE_PEERS_PYTHON"] = peers
        command = [sys.executable, str(BENCHMARKS / f"{name}.py"), "--quick", *arguments]
        process = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)
        assert process.returncode == 0, process.stderr[-3000:]
        rows = [line.strip("| ").split(" | ") for line in process.stderr.splitlines() if line.startswith("|")]
        return Told(json.loads(process.stdout), [row for row in rows if "---" not in row[0]], process.stderr)

    return run
