from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from run_store import UserError
from run_store.listing import delete_run, find_runs, get_run, resolve_run, status_now
from run_store.locks import RunLock
from run_store.record import Progress, RunRecord, read_record

CHECKOUT = Path(__file__).resolve().parents[2]
NewRun = Any  # the fixture of conftest.py


def brought_to(record: RunRecord, *statuses: Any) -> RunRecord:
    for status in statuses:
        record.move_to(status)
    return record


def ids(page: Any) -> list[str]:
    return [run.record.id for run in page.runs]


def test_newest_first_in_pages(new_run: NewRun, tmp_path: Path) -> None:
    records = [new_run(name="sae" if number % 2 else "embedder", k=number // 3) for number in range(5)]
    newest_first = [record.id for record in reversed(records)]
    assert ids(find_runs(tmp_path / "runs")) == newest_first
    pages = [find_runs(tmp_path / "runs", limit=2, offset=offset) for offset in (0, 2, 4, 6)]
    assert [ids(page) for page in pages] == [newest_first[:2], newest_first[2:4], newest_first[4:], []]
    assert {page.total for page in pages} == {5}
    assert ids(find_runs(tmp_path / "runs", limit=0)) == []
    with pytest.raises(ValueError, match="count runs"):
        find_runs(tmp_path, limit=-1)


def test_filters(new_run: NewRun, tmp_path: Path) -> None:
    root = tmp_path / "runs"
    one = new_run(model="TopK", dataset="minilm")
    other = new_run(name="embedder", model="Relu", dataset="minilm", precision="bf16-mixed")
    failed = brought_to(new_run(k=64, model="TopK", dataset="gpt2"), "failed")
    assert ids(find_runs(root, name="embedder")) == [other.id]
    assert ids(find_runs(root, model="TopK")) == [failed.id, one.id]
    assert ids(find_runs(root, model="TopK", dataset="minilm")) == [one.id]
    assert ids(find_runs(root, status="failed")) == [failed.id]
    assert ids(find_runs(root, spec=one.spec_fingerprint)) == [other.id, one.id]
    assert ids(find_runs(root, spec=failed.spec_fingerprint[:8])) == [failed.id]
    assert ids(find_runs(root, execution=other.exec_fingerprint)) == [other.id]
    assert find_runs(root, name="nothing").total == 0


def test_a_run_is_got_by_its_id(new_run: NewRun, tmp_path: Path) -> None:
    record = new_run()
    found = get_run(tmp_path / "runs", record.id)
    assert found is not None
    assert found.record == record
    assert found.folder == record.folder
    assert get_run(tmp_path / "runs", "missing") is None
    assert get_run(tmp_path / "no such folder", record.id) is None


def test_a_run_is_meant_by_folder_name_or_id(new_run: NewRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    first, second, alone = new_run(), new_run(), new_run(name="embedder")
    identity = first.folder.parent.name
    for wanted in (first.folder, f"runs/sae/{identity}/v1", f"sae/{identity}/v1", first.id, first.id[:16]):
        assert resolve_run("runs", wanted).record.id == first.id
    assert resolve_run("runs", "embedder").record.id == alone.id
    with pytest.raises(UserError, match=r"^sae may be any of 2 runs \(.*v2, .*v1\): give the folder of one"):
        resolve_run("runs", "sae")
    for wanted in ("missing", "", f"{identity[2:]}/v1"):
        with pytest.raises(UserError, match=r"there is no run .* in runs: give its folder or its id"):
            resolve_run("runs", wanted)
    (second.folder / "metadata.json").write_text("{")
    with pytest.raises(UserError, match="is damaged"):
        resolve_run("runs", second.folder)


def test_a_name_does_not_mean_runs_that_ended_before_their_first_step(new_run: NewRun, root: Path) -> None:
    trained, mistaken, stopped = new_run(), new_run(), new_run()
    brought_to(trained, "initialising", "running").report(Progress(step=70))
    brought_to(mistaken, "failed")
    brought_to(stopped, "initialising", "interrupted")
    assert resolve_run(root, "sae").record.id == trained.id
    assert resolve_run(root, mistaken.id).record.id == mistaken.id
    delete_run(trained.folder)
    with pytest.raises(UserError, match="sae may be any of 2 runs"):
        resolve_run(root, "sae")


def test_damaged_records_are_told_and_do_not_hide_the_others(new_run: NewRun, tmp_path: Path) -> None:
    sound, damaged, empty = new_run(), new_run(), new_run()
    (damaged.folder / "metadata.json").write_text("{")
    (empty.folder / "metadata.json").unlink()
    (sound.folder.parent / "v9.7.partial").mkdir()
    (tmp_path / "runs" / "sae" / "version_0").mkdir()
    (tmp_path / "runs" / "stray file").touch()
    page = find_runs(tmp_path / "runs", status="pending", limit=1)
    assert ids(page) == [sound.id]
    first, second = page.damaged
    assert f"{damaged.folder / 'metadata.json'} is damaged" in first
    assert f"{empty.folder} is no run" in second


@pytest.mark.parametrize("status", ["initialising", "running"])
def test_a_run_at_work_without_its_lock_was_interrupted(new_run: NewRun, tmp_path: Path, status: Any) -> None:
    record = brought_to(new_run(), *["initialising", "running"][: 1 + (status == "running")])
    with RunLock(record.folder):
        assert status_now(record) == status
        assert ids(find_runs(tmp_path / "runs", status=status)) == [record.id]
    assert status_now(record) == "interrupted"
    assert ids(find_runs(tmp_path / "runs", status=status)) == []
    assert [run.status for run in find_runs(tmp_path / "runs", status="interrupted").runs] == ["interrupted"]
    assert read_record(record.folder).status == status  # looking changes nothing


ENDED = [
    ["failed"],
    ["interrupted"],
    ["initialising", "running", "complete"],
    ["initialising", "running"],  # and killed
]


@pytest.mark.parametrize("way", ENDED)
def test_a_run_that_ended_is_deleted_whole(new_run: NewRun, tmp_path: Path, way: list[Any]) -> None:
    record, neighbour = brought_to(new_run(), *way), new_run()
    (record.folder / "checkpoints").mkdir()
    (record.folder / "checkpoints" / "model").write_text("weights")
    (record.folder.parent / "v7.123.partial").mkdir()  # of a deletion that was killed
    delete_run(record.folder)
    assert list(record.folder.parent.iterdir()) == [neighbour.folder]
    assert get_run(tmp_path / "runs", record.id) is None


@pytest.mark.parametrize("way", [[], ["initialising", "running", "paused"]])
def test_a_run_that_somebody_waits_for_is_not_deleted(new_run: NewRun, way: list[Any]) -> None:
    record = brought_to(new_run(), *way)
    with pytest.raises(UserError, match=f"is {record.status} and is not deleted: finish it or mark it interrupted"):
        delete_run(record.folder)
    assert read_record(record.folder) == record
    record.move_to("interrupted")
    delete_run(record.folder)
    assert not record.folder.exists()


def test_a_run_at_work_is_not_deleted(new_run: NewRun) -> None:
    record = brought_to(new_run(), "initialising", "running")
    with RunLock(record.folder), pytest.raises(UserError, match="is working on the run"):
        delete_run(record.folder)
    assert read_record(record.folder) == record


def test_a_damaged_run_can_be_deleted(new_run: NewRun) -> None:
    record = new_run()
    (record.folder / "metadata.json").write_text("{")
    delete_run(record.folder)
    assert not record.folder.exists()


@pytest.mark.parametrize("name", ["v2", "v01", "notes", "../../../.."])
def test_only_runs_are_deleted(new_run: NewRun, name: str) -> None:
    record = new_run()
    (record.folder.parent / "notes").mkdir()
    with pytest.raises(UserError, match=r"there is no run .*: check the path"):
        delete_run(record.folder.parent / name)
    assert (record.folder.parent / "notes").exists()


def test_a_kill_in_the_middle_of_deleting_leaves_no_run(new_run: NewRun, tmp_path: Path) -> None:
    record, neighbour = brought_to(new_run(), "failed"), brought_to(new_run(), "failed")
    code = """
import os, shutil, signal, sys
from run_store.listing import delete_run
shutil.rmtree = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
delete_run(sys.argv[1])
"""
    killed = subprocess.run([sys.executable, "-c", code, str(record.folder)], cwd=CHECKOUT)
    assert killed.returncode < 0
    page = find_runs(tmp_path / "runs")
    assert ids(page) == [neighbour.id]
    assert not page.damaged
    delete_run(neighbour.folder)
    assert list(record.folder.parent.iterdir()) == []
