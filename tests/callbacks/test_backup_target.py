"""What stands at a backup's URL, whenever the copying ends."""

from __future__ import annotations

from itertools import count
from pathlib import Path

import pytest

from callbacks.backup_target import BackupTarget
from run_store.checkpoints import add_metrics
from tests.callbacks.backed_up import Unreliable, fetched, new_run, save, whole_ones


@pytest.fixture
def line():
    """The unreliable file system, sound and empty."""
    Unreliable.store.clear()
    Unreliable.pseudo_dirs[:] = [""]
    Unreliable.writes_left, Unreliable.writes = float("inf"), 0
    yield Unreliable
    Unreliable.writes_left = float("inf")


@pytest.mark.parametrize("url", ["memory://target-{}", "file://{}/drive", "{}/drive"])
def test_a_copy_is_the_same_files(tmp_path: Path, url: str) -> None:
    run = new_run(tmp_path / "runs").folder
    checkpoint = save(run, 5)
    url = url.format(tmp_path)
    BackupTarget(url, "a[1]/v1").put_checkpoint(checkpoint)
    # brackets are no pattern
    back = fetched(url, tmp_path / "back") / "a[1]" / "v1" / "checkpoints" / "step-00000005"
    assert {path.name: path.read_bytes() for path in back.iterdir()} == {
        path.name: path.read_bytes() for path in checkpoint.iterdir()
    }


def test_whenever_the_line_is_cut_no_half_checkpoint_stands_there_and_the_rest_comes_later(
    tmp_path: Path, line: type[Unreliable]
) -> None:
    """First a save, then another of the same step in its place, cut after each write."""
    run = new_run(tmp_path / "runs").folder
    older = fetched_copy(save(run, 5, b"older"), tmp_path / "older")
    newer = save(run, 5, b"newer and longer")
    target = BackupTarget("unreliable://target", "run")
    for cut in count():
        line.store.clear()
        line.writes_left = float("inf")
        target.put_checkpoint(older)
        line.writes_left = cut
        try:
            target.put_checkpoint(newer)
        except ConnectionError:
            assert whole_ones(fetched("unreliable://target/run", tmp_path / "back") / "checkpoints") <= {newer.name}
        else:
            break
        line.writes_left = float("inf")
        target.put_checkpoint(newer)
        back = fetched("unreliable://target/run", tmp_path / "back") / "checkpoints"
        assert whole_ones(back) == {newer.name}
        assert (back / newer.name / "state.ckpt").read_bytes() == b"newer and longer"
    assert cut > 5


def fetched_copy(checkpoint: Path, folder: Path) -> Path:
    folder.mkdir()
    return checkpoint.rename(folder / checkpoint.name)


def test_a_copy_that_was_broken_off_sends_no_file_twice(tmp_path: Path, line: type[Unreliable]) -> None:
    checkpoint = save(new_run(tmp_path / "runs").folder, 5)
    target = BackupTarget("unreliable://target", "run")
    target.put_checkpoint(checkpoint)
    at_once = line.writes
    line.store.clear()
    line.writes, line.writes_left = 0, 2  # the announcement and one file
    with pytest.raises(ConnectionError):
        target.put_checkpoint(checkpoint)
    line.writes_left = float("inf")
    target.put_checkpoint(checkpoint)
    assert line.writes == at_once
    target.put_checkpoint(checkpoint)
    assert line.writes == at_once


def test_metrics_that_came_later_replace_the_manifest_alone(tmp_path: Path, line: type[Unreliable]) -> None:
    checkpoint = save(new_run(tmp_path / "runs").folder, 5)
    target = BackupTarget("unreliable://target", "run")
    target.put_checkpoint(checkpoint)
    add_metrics(checkpoint, {"val/fvu": 0.25})
    line.writes = 0
    target.put_checkpoint(checkpoint)
    assert line.writes == 3  # written, copied to its name, removed
    back = fetched("unreliable://target/run", tmp_path / "back") / "checkpoints" / checkpoint.name
    assert (back / "manifest.json").read_bytes() == (checkpoint / "manifest.json").read_bytes()


def test_a_removed_checkpoint_leaves_nothing(tmp_path: Path) -> None:
    checkpoint = save(new_run(tmp_path / "runs").folder, 5)
    target = BackupTarget(f"file://{tmp_path}/drive", "run")
    target.put_checkpoint(checkpoint)
    target.remove_checkpoint(checkpoint.name)
    assert list((tmp_path / "drive" / "run" / "checkpoints").iterdir()) == []
    target.remove_checkpoint(checkpoint.name)


def test_a_drive_that_is_not_mounted_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="is its drive mounted"):
        BackupTarget(f"file://{tmp_path}/drive/runs", "run")
    assert not (tmp_path / "drive").exists()
