from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from run_store.descent import descendants
from run_store.listing import find_runs
from run_store.record import Lineage

NewRun = Any  # the fixture of conftest.py


def names_of_descendants(root: Path, name: str) -> list[str]:
    runs = find_runs(root).runs
    (ancestor,) = (run for run in runs if run.record.name == name)
    return [run.record.name for run in descendants(ancestor, runs)]


def test_children_come_before_grandchildren(new_run: NewRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    parent = new_run(name="parent")
    weights = parent.folder.relative_to(tmp_path) / "checkpoints" / "step-00000001"
    child = new_run(name="child", lineage=Lineage(parent_checkpoint=str(weights)))
    new_run(name="grandchild", lineage=Lineage(parent_run=child.id))
    new_run(name="stranger", lineage=Lineage(parent_run="unknown", parent_checkpoint="imported/sae"))
    assert names_of_descendants(Path("runs"), "parent") == ["child", "grandchild"]
    assert names_of_descendants(Path("runs"), "child") == ["grandchild"]
    assert names_of_descendants(Path("runs"), "stranger") == []


def test_a_circle_ends(new_run: NewRun, tmp_path: Path) -> None:
    one, other = new_run(name="one"), new_run(name="other")
    for record, parent in ((one, other), (other, one)):
        record.lineage = Lineage(parent_run=parent.id)
        record.write("lineage")
    assert names_of_descendants(tmp_path / "runs", "one") == ["other"]
