"""`runs delete`."""

from __future__ import annotations

from typing import Any

import pytest

from run_store.listing import find_runs
from run_store.locks import RunLock
from run_store.record import Lineage


@pytest.fixture
def family(new_run: Any) -> dict[str, Any]:
    """A run, one that began with its weights, one that began with that one's, and one that is no relation."""
    records: dict[str, Any] = {"parent": new_run(k=1)}
    records["child"] = new_run(k=2, lineage=Lineage(parent_run=records["parent"].id))
    weights = str(records["child"].folder / "checkpoints" / "step-00000100")
    records["grandchild"] = new_run(k=3, lineage=Lineage(parent_checkpoint=weights))
    records["stranger"] = new_run(k=4)
    for record in records.values():
        record.move_to("failed")
    return records


def left(root: Any, family: dict[str, Any]) -> set[str]:
    there = {run.record.id for run in find_runs(root).runs}
    return {name for name, record in family.items() if record.id in there}


def test_what_others_descend_from_is_refused_unless_told(family: dict[str, Any], printed: Any, root: Any) -> None:
    parent = str(family["parent"].folder)
    told = printed("delete", parent, "--yes", code=2)
    assert f"2 runs began with weights of the run {parent} ({family['child'].folder}, " in told
    assert left(root, family) == family.keys()
    printed("delete", str(family["child"].folder), "--yes", "--descendants", "keep")
    assert left(root, family) == {"parent", "grandchild", "stranger"}


def test_descendants_go_too_when_told(family: dict[str, Any], printed: Any, root: Any) -> None:
    lines = printed("delete", family["parent"].id, "--yes", "--descendants", "delete").splitlines()
    assert lines == [f"deleted {family[name].folder}" for name in ("grandchild", "child", "parent")]
    assert left(root, family) == {"stranger"}
    assert printed("list").splitlines()[-1].startswith("1–1 of 1 runs")


def test_nothing_goes_when_one_of_them_must_stay(family: dict[str, Any], printed: Any, root: Any) -> None:
    family["child"].begin_attempt()
    with RunLock(family["child"].folder):
        told = printed("delete", family["parent"].id, "--yes", "--descendants", "delete", code=2)
    assert f"the run {family['child'].folder} is initialising, and nothing is deleted" in told
    assert left(root, family) == family.keys()


@pytest.mark.parametrize(("answer", "remains"), [("y", False), ("n", True), ("", True)])
def test_it_asks(
    family: dict[str, Any], printed: Any, root: Any, monkeypatch: pytest.MonkeyPatch, answer: str, remains: bool
) -> None:
    folder = family["stranger"].folder
    assert "Say so by --yes" in printed("delete", str(folder), code=2)
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda question: answer)
    assert ("nothing is deleted" in printed("delete", str(folder))) == remains
    assert folder.exists() == remains
