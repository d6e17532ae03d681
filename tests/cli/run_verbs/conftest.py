from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cli import main
from run_store.record import Progress, RunRecord
from tests.run_store.conftest import new_run

__all__ = ["new_run"]

Printed = Callable[..., str]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "runs"


@pytest.fixture
def printed(root: Path, capsys: pytest.CaptureFixture[str]) -> Printed:
    """printed("list", "--json", code=0) → what the verb prints; with code=2, the one line of its error."""

    def call(*arguments: str, code: int = 0) -> str:
        assert main(["runs", *arguments, "--folder", str(root)]) == code
        output = capsys.readouterr()
        if code == 2:
            (line,) = output.err.splitlines()
            return line
        return output.out

    return call


@pytest.fixture
def complete_run(new_run: Any) -> Callable[..., RunRecord]:
    """complete_run(metrics, step=100, config={…}, **what new_run takes) → the record of a complete run."""

    def make(
        metrics: dict[str, float], step: int = 100, config: dict[str, Any] | None = None, **settings: Any
    ) -> RunRecord:
        record: RunRecord = new_run(**settings)
        attempt = record.begin_attempt()
        if config is not None:
            (record.folder / f"config.{attempt.number}.yaml").write_text(json.dumps(config))
        record.move_to("running")
        record.report(Progress(step), metrics)
        record.complete([])
        return record

    return make
