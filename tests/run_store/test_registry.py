"""The runs below a folder as the index tells them, and trainings as records."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from run_store import UserError
from run_store.listing import delete_run, find_runs
from run_store.locks import RunLock
from run_store.record import Progress, RunRecord, read_record
from run_store.registry import find_run, get_listed, list_runs, reindex, stamps
from run_store.run_index import Order, RunQuery

CHECKOUT = Path(__file__).resolve().parents[2]
NewRun = Any  # the fixture of conftest.py


def brought_to(record: RunRecord, *statuses: Any) -> RunRecord:
    for status in statuses:
        record.move_to(status)
    return record


def ids(root: Path, **query: Any) -> list[str]:
    return [run.summary.id for run in list_runs(root, RunQuery(**query)).runs]


# Trainings as records


def test_a_training_is_created_with_an_id_of_its_own(new_run: NewRun, root: Path) -> None:
    records = [new_run() for _ in range(5)]
    assert len({*ids(root)}) == len(records)


def test_a_training_is_got_by_its_id(new_run: NewRun, root: Path) -> None:
    record = new_run()
    found = get_listed(root, record.id)
    assert found is not None
    assert found.folder == record.folder
    assert get_listed(root, record.id[:8]) is None, "an id is whole"
    assert get_listed(root, "missing") is None
    assert get_listed(root / "no such folder", record.id) is None


def test_trainings_are_listed_with_filters(new_run: NewRun, root: Path) -> None:
    one = new_run(model="TopK", dataset="minilm")
    other = new_run(name="embedder", model="Relu", dataset="minilm")
    failed = brought_to(new_run(k=64, model="TopK", dataset="gpt2"), "failed")
    one.label(tags=["good", "größer"])
    failed.label(tags=["good"])
    assert ids(root, name="embedder") == [other.id]
    assert ids(root, model="TopK") == [failed.id, one.id]
    assert ids(root, model="TopK", dataset="minilm") == [one.id]
    assert ids(root, status="failed") == [failed.id]
    assert ids(root, tags=("good",)) == [failed.id, one.id]
    assert ids(root, tags=("good", "größer")) == [one.id]
    assert ids(root, name="nothing") == []
    assert list_runs(root, RunQuery(model="TopK", limit=1)).total == 2


def test_trainings_are_listed_newest_first_in_pages(new_run: NewRun, root: Path) -> None:
    records = [new_run(k=number // 3) for number in range(5)]
    newest_first = [record.id for record in reversed(records)]
    assert ids(root) == newest_first
    pages = [ids(root, limit=2, offset=offset) for offset in (0, 2, 4, 6)]
    assert pages == [newest_first[:2], newest_first[2:4], newest_first[4:], []]
    assert ids(root, limit=0) == []
    with pytest.raises(ValueError, match="count runs"):
        RunQuery(limit=-1)


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        ("newest", "cba"),
        ("oldest", "abc"),
        ("changed", "acb"),
        ("most_steps", "bca"),
        ("fewest_steps", "acb"),
        ("name", "abc"),
    ],
)
def test_orders(new_run: NewRun, root: Path, order: Order, expected: str) -> None:
    names = {}
    for name, step in (("a", 0), ("b", 200), ("c", 100)):
        names[name] = record = brought_to(new_run(name=name), "initialising", "running")
        record.report(Progress(step))
    names["a"].label(note="changed last")
    assert [run.summary.name for run in list_runs(root, RunQuery(order=order)).runs] == list(expected)


def test_status_and_progress_are_updated(new_run: NewRun, root: Path) -> None:
    record = brought_to(new_run(), "initialising", "running")
    with RunLock(record.folder):
        record.report(Progress(200, 2), {"val/fvu": 0.25, "loss": float("nan"), "most": float("inf")})
        (run,) = list_runs(root).runs
    assert (run.status, run.summary.step) == ("running", 200)
    assert str(run.summary.metrics) == str(record.metrics)
    record.complete([])
    assert list_runs(root).runs[0].status == "complete"


def test_trainings_are_deleted(new_run: NewRun, root: Path) -> None:
    record, other = brought_to(new_run(), "failed"), new_run()
    assert len(ids(root)) == 2
    delete_run(record.folder)
    assert ids(root) == [other.id]
    assert get_listed(root, record.id) is None


def test_events_are_emitted_as_trainings_change(new_run: NewRun) -> None:
    record = brought_to(new_run(), "initialising", "running")
    record.report(Progress(100))
    record.label(tags=["good"], note="keep")
    record.complete([])
    told = [(event["event"], event["status"]) for event in read_record(record.folder).history()]
    assert told == [
        ("created", "pending"),
        ("status", "initialising"),
        ("status", "running"),
        ("progress", "running"),
        ("labels", "running"),
        ("status", "complete"),
    ]


# Status as of now


def test_a_run_at_work_without_its_lock_was_interrupted(new_run: NewRun, root: Path) -> None:
    record = brought_to(new_run(), "initialising", "running")
    pending = new_run(name="embedder")
    with RunLock(record.folder):
        assert list_runs(root, RunQuery(name="sae")).runs[0].status == "running"
        assert ids(root, status="running") == [record.id]
        assert ids(root, status="interrupted") == []
    assert list_runs(root, RunQuery(name="sae")).runs[0].status == "interrupted"
    assert ids(root, status="running") == []
    page = list_runs(root, RunQuery(status="interrupted"))
    assert [run.status for run in page.runs] == ["interrupted"]
    assert page.total == 1
    assert ids(root, status="interrupted", name="embedder") == []
    assert ids(root, status="pending") == [pending.id]
    assert read_record(record.folder).status == "running"  # looking changes nothing


def test_only_the_locks_that_matter_are_looked_at(new_run: NewRun, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    brought_to(new_run(), "initialising", "running")
    for _ in range(3):
        brought_to(new_run(), "failed")
    looked: list[Path] = []
    monkeypatch.setattr("run_store.registry.is_held", lambda folder: looked.append(folder))
    list_runs(root, RunQuery(limit=3))
    assert looked == []
    list_runs(root)
    assert len(looked) == 1


def test_a_page_opens_no_run_folder(new_run: NewRun, root: Path) -> None:
    for number in range(20):
        brought_to(new_run(name=f"name {number % 2}", k=number // 4), "failed")
    list_runs(root)
    code = """
import sys
opened = []
sys.addaudithook(lambda event, arguments: opened.append(str(arguments[0])) if event in ("open", "os.listdir") else None)
from dataclasses import replace
from pathlib import Path
from run_store.registry import list_runs
from run_store.run_index import RunQuery
assert list_runs(sys.argv[1], RunQuery(limit=5)).total == 20
print(*[name for name in opened if "/spec-" in name])
"""
    command = [sys.executable, "-c", code, str(root)]
    assert subprocess.run(command, cwd=CHECKOUT, check=True, capture_output=True, text=True).stdout == "\n"


# What a person means


def test_a_run_is_meant_by_folder_name_or_id(new_run: NewRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    first, second, alone = new_run(), new_run(), new_run(name="embedder")
    identity = first.folder.parent.name
    for wanted in (first.folder, f"runs/sae/{identity}/v1", f"sae/{identity}/v1", first.id, first.id[:16]):
        assert find_run("runs", wanted).record.id == first.id
    assert find_run("runs", "embedder").record.id == alone.id
    with pytest.raises(UserError, match=r"^sae may be any of 2 runs \(.*v2, .*v1\): give the folder of one"):
        find_run("runs", "sae")
    for wanted in ("missing", "", f"{identity[2:]}/v1", "x" * 200, "%", "_mbedder"):
        with pytest.raises(UserError, match=r"there is no run .* in runs: give its folder or its id"):
            find_run("runs", wanted)
    (second.folder / "metadata.json").write_text("{")
    with pytest.raises(UserError, match="is damaged"):
        find_run("runs", second.folder)


# What others do to the folders


def test_a_folder_without_runs_gets_no_index(root: Path) -> None:
    assert list_runs(root).total == 0
    assert not root.exists()
    root.mkdir()
    (root / "notes").mkdir()
    assert list_runs(root).total == reindex(root).total == 0
    assert [path.name for path in root.iterdir()] == ["notes"]


def test_identities_that_come_and_go_are_noticed(new_run: NewRun, root: Path, tmp_path: Path) -> None:
    record = new_run()
    assert ids(root) == [record.id]
    shutil.copytree(root / "sae", root / "copied")
    assert ids(root) == [record.id] * 2
    shutil.rmtree(root / "sae")
    assert ids(root) == [record.id]
    shutil.rmtree(root / "copied")
    assert ids(root) == []


def test_a_run_on_the_page_is_as_its_folder_is(new_run: NewRun, root: Path) -> None:
    kept, changed, gone = new_run(), new_run(), new_run()
    list_runs(root)
    content = json.loads((changed.folder / "metadata.json").read_text())
    (changed.folder / "metadata.json").write_text(json.dumps({**content, "model": "edited"}))
    shutil.rmtree(gone.folder)
    page = list_runs(root)
    assert [(run.summary.id, run.summary.model) for run in page.runs] == [(changed.id, "edited"), (kept.id, "")]
    assert page.total == 2


def test_reindex_finds_what_is_on_no_page(new_run: NewRun, root: Path) -> None:
    record = new_run()
    list_runs(root)
    shutil.copytree(record.folder, record.folder.with_name("v2"))
    assert reindex(root).total == 2
    shutil.rmtree(record.folder.with_name("v2"))
    assert reindex(root).total == 1


def test_runs_may_be_moved_as_a_whole(new_run: NewRun, root: Path, tmp_path: Path) -> None:
    record = new_run()
    list_runs(root)
    root.rename(tmp_path / "elsewhere")
    (run,) = list_runs(tmp_path / "elsewhere").runs
    assert run.folder == tmp_path / "elsewhere" / record.folder.relative_to(root)


def test_damaged_records_are_told_and_do_not_hide_the_others(new_run: NewRun, root: Path) -> None:
    sound, damaged, empty = new_run(), new_run(), new_run()
    list_runs(root)
    text = (damaged.folder / "metadata.json").read_text()
    (damaged.folder / "metadata.json").write_text("{")
    (empty.folder / "metadata.json").unlink()
    (root / "stray file").touch()
    for look in (list_runs, list_runs, reindex):
        page = look(root)
        assert [run.summary.id for run in page.runs] == [sound.id]
        assert page.damaged == find_runs(root).damaged
        assert len(page.damaged) == 2
    (damaged.folder / "metadata.json").write_text(text)
    shutil.rmtree(empty.folder)
    page = list_runs(root)
    assert [run.summary.id for run in page.runs] == [damaged.id, sound.id]
    assert page.damaged == []


def test_odd_values_in_a_record_do_not_stop_the_list(new_run: NewRun, root: Path) -> None:
    sound, odd, other = new_run(), new_run(), new_run()
    for record, changes in ((odd, {"progress": {"step": {}}}), (other, {"model": "\ud800"})):
        content = json.loads((record.folder / "metadata.json").read_text())
        (record.folder / "metadata.json").write_text(json.dumps({**content, **changes}))
    assert [run.summary.id for run in reindex(root).runs] == [other.id, sound.id]


def test_stamps_change_with_the_record(new_run: NewRun, root: Path) -> None:
    record, other = new_run(), new_run()
    before = stamps(root)
    record.label(note="changed")
    after = stamps(root)
    assert before.keys() == after.keys() == {record.folder, other.folder}
    assert [folder for folder in after if after[folder] != before[folder]] == [record.folder]
    assert os.path.exists(record.folder / "labels.json")
