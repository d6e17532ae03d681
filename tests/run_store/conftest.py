from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from run_store.fingerprints import Execution, IdentityFlags, Spec
from run_store.layout import identity_folder
from run_store.record import RunRecord, create_record
from run_store.variants import claim_variant

NewRun = Callable[..., RunRecord]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The folder of the runs that `new_run` makes."""
    return tmp_path / "runs"


@pytest.fixture
def new_run(tmp_path: Path) -> NewRun:
    """new_run(name="sae", k=32, precision="32-true", **what a record takes) → the record of a pending run below
    tmp_path/runs.
    """

    def new(name: str = "sae", k: int = 32, precision: str = "32-true", **settings: Any) -> RunRecord:
        spec = Spec({"class_path": "TopK", "k": k}, {"store": {"sha256": "5ca1ab1e"}}, {"max_epochs": 3}, 0)
        execution = Execution({"commit": "c0ffee"}, precision, {}, {}, IdentityFlags())
        folder = identity_folder(tmp_path / "runs", name, spec.fingerprint, execution.fingerprint)
        return create_record(claim_variant(folder), name, spec, execution, **settings)

    return new
