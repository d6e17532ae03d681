from __future__ import annotations

import hashlib
import json
import os
import resource
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError
from safetensors.numpy import save_file

from run_store import UserError, atomic_file, atomic_folder, sha256_of, sweep_temporaries, write_json

CHECKOUT = Path(__file__).resolve().parents[2]

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner),
    max_leaves=10,
)


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Lets no file of this process grow beyond `size` bytes; the kernel answers EFBIG."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """A file with old content, alone in its folder."""
    target = tmp_path / "folder" / "manifest.json"
    target.parent.mkdir()
    target.write_text("old")
    return target


def only_the_old_content_is_left(target: Path) -> bool:
    return list(target.parent.iterdir()) == [target] and target.read_text() == "old"


def write_and_fail(target: Path, error: BaseException) -> None:
    with atomic_file(target) as temporary:
        temporary.write_text("half of the ne")
        raise error


def write_to_a_full_device(target: Path) -> None:
    with atomic_file(target) as temporary:
        temporary.symlink_to("/dev/full")
        temporary.write_bytes(b"new")


def stumble_over_a_full_device(target: Path) -> None:
    with atomic_file(target) as temporary:
        temporary.symlink_to("/dev/full")
        try:
            temporary.write_bytes(b"new")
        finally:
            raise RuntimeError("the file is unfinished")


def test_the_target_appears_only_at_the_end(tmp_path: Path) -> None:
    target = tmp_path / "file"
    with atomic_file(target) as temporary:
        temporary.write_text("new")
        assert not target.exists()
        assert temporary.parent == target.parent  # a rename from another disk would be a copy, and could be cut short
    assert target.read_text() == "new"
    assert list(tmp_path.iterdir()) == [target]


def test_old_content_is_replaced(target: Path) -> None:
    with atomic_file(target) as temporary:
        temporary.write_text("new")
        assert target.read_text() == "old"
    assert target.read_text() == "new"


def test_content_and_name_are_flushed_to_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A rename that reaches the disk before the content would leave an empty file behind after a power cut.
    steps: list[str] = []
    fsync, replace = os.fsync, os.replace

    def recorded_fsync(handle: int) -> None:
        steps.append("flush folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "flush file")
        fsync(handle)

    def recorded_replace(source: Path, destination: Path) -> None:
        steps.append("rename")
        replace(source, destination)

    monkeypatch.setattr(os, "fsync", recorded_fsync)
    monkeypatch.setattr(os, "replace", recorded_replace)
    write_json(tmp_path / "manifest.json", {})
    assert steps == ["flush file", "rename", "flush folder"]


@pytest.mark.parametrize("error", [ValueError("a bug"), KeyboardInterrupt(), SystemExit(0)])
def test_a_failed_overwrite_leaves_the_old_content_alone(target: Path, error: BaseException) -> None:
    with pytest.raises(type(error)) as raised:
        write_and_fail(target, error)
    assert raised.value is error
    assert only_the_old_content_is_left(target)


def test_a_block_that_writes_nothing_is_a_bug_not_an_empty_file(target: Path) -> None:
    with pytest.raises(FileNotFoundError), atomic_file(target):
        pass
    assert only_the_old_content_is_left(target)


def test_a_file_too_big_for_the_system_leaves_nothing_half_written(target: Path) -> None:
    # EFBIG is a limit that somebody set, not a full disk: freeing space would not help, so it keeps its own words.
    with pytest.raises(OSError, match="File too large"), largest_file(1000), atomic_file(target) as temporary:
        temporary.write_bytes(bytes(1001))
    assert only_the_old_content_is_left(target)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs the device that is always full")
@pytest.mark.parametrize("write", [write_to_a_full_device, stumble_over_a_full_device])
def test_a_full_disk_names_the_target(target: Path, write: Callable[[Path], None]) -> None:
    with pytest.raises(UserError, match=f"no space left on the disk of {target}"):
        write(target)
    assert only_the_old_content_is_left(target)


def test_a_full_disk_keeps_the_old_json(small_disk: Path) -> None:
    target = small_disk / "manifest.json"
    write_json(target, "old")
    with pytest.raises(UserError, match=f"no space left on the disk of {target}"):
        write_json(target, "new" * 100_000)
    assert list(small_disk.iterdir()) == [target]
    assert json.loads(target.read_text()) == "old"


def test_a_disk_that_fills_up_under_safetensors_is_recognised(small_disk: Path) -> None:
    with pytest.raises(UserError, match="no space left") as raised, atomic_file(small_disk / "shard") as temporary:
        save_file({"rows": numpy.zeros(100_000)}, temporary)
    assert isinstance(raised.value.__cause__, SafetensorError)
    assert list(small_disk.iterdir()) == []


@pytest.mark.parametrize("parent", ["missing", "file"])
def test_a_folder_that_cannot_hold_the_target_is_named(tmp_path: Path, parent: str) -> None:
    (tmp_path / "file").write_text("not a folder")
    target = tmp_path / parent / "manifest.json"
    with pytest.raises(UserError, match=f"{target} cannot be written .*: choose another folder"):
        write_json(target, {})
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


def test_a_folder_in_the_place_of_a_file_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"{tmp_path} is a folder: name a file in it"), atomic_file(tmp_path):
        raise AssertionError
    assert not list(tmp_path.iterdir())


def test_a_folder_of_somebody_else_is_named(target: Path) -> None:
    code = """
import os, sys
from run_store import UserError, write_json
if os.geteuid() == 0:
    os.setuid(65534)  # root may write anywhere; nobody may not
try:
    write_json(sys.argv[1], "new")
except UserError as error:
    print(error)
"""
    target.parent.chmod(0o555)
    printed = subprocess.run([sys.executable, "-c", code, target], cwd=CHECKOUT, capture_output=True, check=True)
    target.parent.chmod(0o755)
    assert printed.stdout.decode() == f"{target} cannot be written (Permission denied): choose another folder\n"
    assert only_the_old_content_is_left(target)


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_permissions_follow_the_umask_whoever_writes(tmp_path: Path, umask: int, mode: int) -> None:
    before = os.umask(umask)
    try:
        write_json(tmp_path / "by_us", {})
        with atomic_file(tmp_path / "by_safetensors") as temporary:
            save_file({"rows": numpy.zeros(3)}, temporary)
    finally:
        os.umask(before)
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {mode}


def killed_while_writing(target: Path) -> None:
    """SIGKILLs a process that has written half of `target`'s new content."""
    code = """
import sys, time
from run_store import atomic_file
with atomic_file(sys.argv[1]) as temporary:
    temporary.write_text("half of the ne")
    print("written", flush=True)
    time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", code, target], cwd=CHECKOUT, stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"written\n"
        writer.kill()
    assert writer.returncode == -signal.SIGKILL


def test_a_killed_writer_leaves_the_old_file_whole_and_a_leftover_to_sweep(target: Path) -> None:
    killed_while_writing(target)
    assert target.read_text() == "old"
    (leftover,) = set(target.parent.iterdir()) - {target}
    assert sweep_temporaries(target.parent.parent) == [leftover]
    assert only_the_old_content_is_left(target)


def test_the_sweep_takes_nothing_else(tmp_path: Path) -> None:
    left_by_safetensors = tmp_path / ".tmpkfnWjz"
    kept = [tmp_path / name for name in ("shard.safetensors", "notes.partial", "tmpkfnWjz", ".tmp")]
    for path in [left_by_safetensors, *kept]:
        path.write_text("content")
    (tmp_path / "folder.1.partial").mkdir()
    assert sweep_temporaries(tmp_path) == [left_by_safetensors]
    assert sorted(tmp_path.iterdir()) == sorted([*kept, tmp_path / "folder.1.partial"])


def test_sweeping_a_folder_that_is_not_there_finds_nothing(tmp_path: Path) -> None:
    assert sweep_temporaries(tmp_path / "missing") == []


@settings(max_examples=30)  # each one waits for the disk
@given(content=JSON)
def test_json_comes_back_as_it_was_written(tmp_path_factory: pytest.TempPathFactory, content: object) -> None:
    target = tmp_path_factory.getbasetemp() / "content.json"
    write_json(target, content)
    text = target.read_text(encoding="utf-8")
    assert json.loads(text) == content
    assert text.endswith("\n")


def test_what_json_cannot_hold_leaves_the_old_content_alone(target: Path) -> None:
    with pytest.raises(TypeError, match="not JSON serializable"):
        write_json(target, {"path": target})
    assert only_the_old_content_is_left(target)


@pytest.mark.parametrize("size", [0, 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1])
def test_sha256_over_block_boundaries(tmp_path: Path, size: int) -> None:
    content = bytes(position * 31 % 251 for position in range(size))
    (tmp_path / "file").write_bytes(content)
    assert sha256_of(tmp_path / "file") == hashlib.sha256(content).hexdigest()


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    target = tmp_path / "deep" / "folder"

    def half():
        with atomic_folder(target) as partial:
            (partial / "file").write_text("half")
            assert not target.exists()
            (partial / "missing").unlink()

    with pytest.raises(FileNotFoundError):
        half()
    assert not list(target.parent.iterdir())
    with atomic_folder(target) as partial:
        (partial / "inner").mkdir()
        (partial / "inner" / "file").write_text("whole")
    assert (target / "inner" / "file").read_text() == "whole"
    assert [path.name for path in target.parent.iterdir()] == ["folder"]


def test_a_folder_takes_the_place_of_an_empty_one_and_of_no_other(tmp_path):
    target = tmp_path / "folder"
    target.mkdir()
    with atomic_folder(target) as partial:
        (partial / "file").write_text("first")
    with pytest.raises(UserError, match=r"there is something in .*folder already"), atomic_folder(target):
        pass
    assert (target / "file").read_text() == "first"
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="there is something"), atomic_folder(tmp_path / "file"):
        pass
    with pytest.raises(UserError, match="cannot be written"), atomic_folder(tmp_path / "file" / "inner"):
        pass


def test_a_full_disk_leaves_no_folder(small_disk):
    with pytest.raises(UserError, match="no space left on the disk"), atomic_folder(small_disk / "folder") as partial:
        (partial / "file").write_bytes(bytes(1 << 20))
    assert not list(small_disk.iterdir())
