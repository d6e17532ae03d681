"""Checkpoint folders of small files; kills are real processes that die."""

import importlib.util
import json
import math
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from run_store import UserError
from run_store.checkpoints import (
    add_metrics,
    checkpoint_path,
    damage,
    demand_space,
    in_words,
    list_checkpoints,
    new_checkpoint,
    newest_valid,
    read_checkpoint,
    remove_checkpoint,
    sweep_leftovers,
)

# the folders of tests are no packages
_spec = importlib.util.spec_from_file_location("killing", Path(__file__).with_name("killing.py"))
killing = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(killing)


def save(folder, step, content=b"state", **more):
    path = checkpoint_path(folder, step)
    with new_checkpoint(path, step, 0, **more) as partial:
        (partial / "state.ckpt").write_bytes(content)
        (partial / "model.safetensors").write_bytes(b"weights")
    return path


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_checkpoint_appears_at_the_end_with_size_and_hash_of_every_file(tmp_path):
    path = checkpoint_path(tmp_path / "checkpoints", 1200)
    with new_checkpoint(path, 1200, 3, {"val/fvu": 0.25, "val/odd": math.nan}, lambda: 5.0) as partial:
        assert partial.parent == path.parent
        (partial / "state.ckpt").write_bytes(b"state")
        assert not path.exists()
    assert names(tmp_path / "checkpoints") == ["step-00001200"]
    found = read_checkpoint(path)
    assert (found.step, found.epoch, found.sequence, found.time) == (1200, 3, 1, 5.0)
    assert found.metrics == {"val/fvu": 0.25, "val/odd": None}
    assert found.files["state.ckpt"].bytes == 5
    assert found.bytes == sum(file.stat().st_size for file in path.iterdir())
    json.loads((path / "manifest.json").read_text(), parse_constant=pytest.fail)  # NaN is no JSON


def test_files_and_names_are_on_the_disk_before_the_rename(tmp_path, monkeypatch):
    steps, fsync, rename = [], os.fsync, os.rename

    def recorded_fsync(handle):
        steps.append("flush folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "flush file")
        fsync(handle)

    monkeypatch.setattr(os, "fsync", recorded_fsync)
    monkeypatch.setattr(os, "rename", lambda *paths: (steps.append("rename"), rename(*paths)))
    save(tmp_path, 1)
    # two files, the manifest and the folder that names all three; then the checkpoint's own name
    assert steps == ["flush file", "flush file", "flush file", "flush folder", "rename", "flush folder"]


def test_a_failed_save_leaves_the_checkpoint_of_that_step_as_it_was(tmp_path):
    def fail():
        with new_checkpoint(path, 1, 0) as partial:
            (partial / "state.ckpt").write_bytes(b"half")
            raise KeyboardInterrupt

    path = save(tmp_path, 1, b"old")
    with pytest.raises(KeyboardInterrupt):
        fail()
    assert names(tmp_path) == ["step-00000001"]
    assert (path / "state.ckpt").read_bytes() == b"old"


@pytest.mark.slow
@pytest.mark.parametrize("step", [1, 2], ids=["of a step saved before", "of a new step"])
def test_a_kill_at_any_moment_of_a_save_leaves_a_checkpoint_to_go_on_from(tmp_path, step):
    """The old state or the new one, never neither and never half of one."""
    moments = 0
    while True:
        folder = tmp_path / str(moments)
        save(folder, 1, b"old")
        if not killing.killed_at(moments + 1, lambda folder=folder: save(folder, step, b"new")):
            break
        sweep_leftovers(folder)
        found = newest_valid(folder)
        assert (found.checkpoint.path / "state.ckpt").read_bytes() in (b"old", b"new")
        assert not found.damaged
        assert set(names(folder)) <= {"step-00000001", "step-00000002"}
        moments += 1
    assert moments > 8


@pytest.mark.slow
def test_a_kill_at_any_moment_of_a_removal_leaves_nothing_that_looks_whole(tmp_path):
    moments = 0
    while True:
        folder = tmp_path / str(moments)
        save(folder, 1)
        path = save(folder, 2)
        if not killing.killed_at(moments + 1, lambda path=path: remove_checkpoint(path)):
            break
        assert not path.exists() or damage(path) is None
        sweep_leftovers(folder)
        assert names(folder) in (["step-00000001"], ["step-00000001", "step-00000002"])
        moments += 1
    assert moments > 3
    assert names(tmp_path / str(moments)) == ["step-00000001"]


def spoil(path, how):
    state = path / "state.ckpt"
    if how == "flipped":
        state.write_bytes(b"stat3")
    elif how == "cut":
        state.write_bytes(b"sta")
    elif how == "gone":
        state.unlink()
    elif how == "no manifest":
        (path / "manifest.json").unlink()
    else:
        (path / "manifest.json").write_text('{"format": 1, "step"')


@pytest.mark.parametrize("how", ["flipped", "cut", "gone", "no manifest", "half a manifest"])
def test_a_damaged_newest_checkpoint_falls_back_to_the_one_before_with_a_warning_that_names_both(tmp_path, how):
    before, newest = save(tmp_path, 100), save(tmp_path, 200)
    assert newest_valid(tmp_path).warning() is None
    spoil(newest, how)
    found = newest_valid(tmp_path)
    assert found.checkpoint.path == before
    assert str(newest) in found.warning()
    assert str(before) in found.warning()
    assert found.warning().count("\n") == 0


def test_when_all_are_damaged_one_sentence_names_each(tmp_path):
    spoil(save(tmp_path, 100), "flipped")
    spoil(save(tmp_path, 200), "no manifest")
    with pytest.raises(UserError, match=r"no checkpoint in .* can be used \(step-00000200: .*; step-00000100: state"):
        newest_valid(tmp_path)


def test_a_folder_without_checkpoints_is_named(tmp_path):
    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(UserError, match=f"there is no checkpoint in {folder}"):
            newest_valid(folder)


def test_the_newest_is_the_one_saved_last_whatever_its_step_and_the_clock(tmp_path):
    save(tmp_path, 200, now=lambda: 1e9)
    gone_back = save(tmp_path, 100, now=lambda: 0.0)
    assert newest_valid(tmp_path).checkpoint.path == gone_back
    assert [checkpoint.step for checkpoint in list_checkpoints(tmp_path)] == [200, 100]


def test_metrics_that_come_later_are_added_and_the_hashes_stay_right(tmp_path):
    path = save(tmp_path, 1, metrics={"train/loss": 1.0})
    add_metrics(path, {"val/fvu": 0.5})
    assert read_checkpoint(path).metrics == {"train/loss": 1.0, "val/fvu": 0.5}
    assert damage(path) is None


def test_a_sweep_clears_what_dead_processes_left_and_spares_the_living(tmp_path):
    save(tmp_path, 1)
    living = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        dead, again = 2**22 + 1, os.getpid()  # no process has so high a number; ours comes again in a container
        for number, kind in ((dead, "partial"), (dead, "trash"), (again, "partial"), (living.pid, "partial")):
            (tmp_path / f"step-00000009.{number}.{kind}").mkdir()
        (tmp_path / "step-00000001" / f"manifest.json.{dead}.partial").write_text("{")
        assert len(sweep_leftovers(tmp_path)) == 4
        assert names(tmp_path) == ["step-00000001", f"step-00000009.{living.pid}.partial"]
        assert damage(tmp_path / "step-00000001") is None
    finally:
        living.communicate(b"\n")


def test_a_checkpoint_that_stepped_aside_gets_its_name_back(tmp_path):
    path = save(tmp_path, 1)
    path.rename(tmp_path / f"step-00000001.{2**22 + 1}.replaced")
    sweep_leftovers(tmp_path)
    assert damage(path) is None


def test_too_little_room_is_one_sentence_with_both_numbers(tmp_path):
    free = shutil.disk_usage(tmp_path).free
    with pytest.raises(UserError, match=r"needs [\d.,]+ [GM]B and its disk has [\d.,]+ [GM]B free"):
        demand_space(tmp_path / "deep" / "step-00000001", 2 * free)
    demand_space(tmp_path / "step-00000001", 1)


def test_a_full_disk_is_one_sentence_and_keeps_the_older_checkpoint(small_disk):
    older = save(small_disk, 1)
    with pytest.raises(UserError, match=r"no space left on the disk of .*step-00000002"):
        save(small_disk, 2, bytes(100_000))
    assert newest_valid(small_disk).checkpoint.path == older
    assert names(small_disk) == ["step-00000001"]


def test_a_manifest_that_points_out_of_its_folder_is_not_followed(tmp_path):
    path = save(tmp_path, 1)
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["files"]["../secret"] = {"bytes": 1, "sha256": "0"}
    (path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match="not a whole checkpoint"):
        read_checkpoint(path)


@pytest.mark.parametrize(
    ("size", "words"), [(12, "12 bytes"), (1500, "1.5 kB"), (2_340_000, "2.34 MB"), (10**10, "10 GB")]
)
def test_sizes_in_words(size, words):
    assert in_words(size) == words
