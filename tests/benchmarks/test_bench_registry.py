"""The benchmark of the registry measures what it says."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from benchmarks.bench_registry import fill
from run_store.listing import find_runs
from run_store.registry import list_runs

CHECKOUT = Path(__file__).resolve().parents[2]


def test_every_folder_holds_a_run(tmp_path: Path) -> None:
    fill(tmp_path, 12, 3)
    found, page = find_runs(tmp_path), list_runs(tmp_path)
    assert (found.total, page.total, found.damaged) == (12, 12, [])
    assert len(found.runs[0].record.metrics) == 40


def test_it_prints_json() -> None:
    command = [sys.executable, "benchmarks/bench_registry.py", "--runs", "12", "--looks", "1"]
    printed = json.loads(subprocess.run(command, cwd=CHECKOUT, check=True, capture_output=True, text=True).stdout)
    assert {"reindex_s", "list_s", "list_command_s"} <= printed.keys()
