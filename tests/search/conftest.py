from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from run_store import write_json
from run_store.completion import describe_outputs
from run_store.fingerprints import Execution, Spec
from run_store.layout import identity_folder
from run_store.record import Progress, RunRecord, create_record
from run_store.variants import claim_variant

FinishedRun = Callable[..., RunRecord]


@pytest.fixture
def started_run(tmp_path: Path) -> FinishedRun:
    """started_run(k) → the record of a run that trains."""

    def start(k: int) -> RunRecord:
        spec, execution = Spec({"k": k}, {}, {}, 0), Execution({}, "32-true", {}, {})
        folder = identity_folder(tmp_path / "runs", "job-search", spec.fingerprint, execution.fingerprint)
        record = create_record(claim_variant(folder), "job-search", spec, execution)
        record.begin_attempt()
        record.move_to("running")
        return record

    return start


@pytest.fixture
def finished_run(started_run: FinishedRun) -> FinishedRun:
    """finished_run(k, **metrics) → the record of a complete run; `__` in a metric's name stands for a slash."""

    def finish(k: int, **metrics: Any) -> RunRecord:
        record = started_run(k)
        record.report(Progress(step=20), {name.replace("__", "/"): value for name, value in metrics.items()})
        write_json(record.folder / "metrics.json", {})
        record.complete(describe_outputs(record.folder, ["metrics.json"]))
        return record

    return finish
