from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from run_store import UserError
from run_store.locks import Holder, RunLock, deciding, holder_of, is_held

CHECKOUT = Path(__file__).resolve().parents[2]


def started(code: str, *arguments: object) -> subprocess.Popen[str]:
    """A process that runs `code` and has printed its first line."""
    process = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)], cwd=CHECKOUT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


HOLDING = """
import sys, time
from run_store.locks import RunLock
with RunLock(sys.argv[1]):
    print("ready", flush=True)
    time.sleep(60)
"""


def test_one_has_it_until_it_lets_go(tmp_path: Path) -> None:
    assert not is_held(tmp_path)
    with RunLock(tmp_path):
        assert is_held(tmp_path)
        assert holder_of(tmp_path) == Holder(os.getpid(), socket.gethostname())
        with pytest.raises(UserError, match=rf"^process {os.getpid()} on .* is working on the run {tmp_path}: wait"):
            RunLock(tmp_path)
    assert not is_held(tmp_path)
    assert holder_of(tmp_path) is None
    RunLock(tmp_path).release()


def test_a_kill_frees_it(tmp_path: Path) -> None:
    with started(HOLDING, tmp_path) as process:
        assert holder_of(tmp_path) == Holder(process.pid, socket.gethostname())
        with pytest.raises(UserError, match=f"process {process.pid} on"):
            RunLock(tmp_path)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    assert not is_held(tmp_path)
    assert json.loads((tmp_path / "run.lock").read_text())["pid"] == process.pid  # left behind, and not believed
    with RunLock(tmp_path):
        assert holder_of(tmp_path) == Holder(os.getpid(), socket.gethostname())


def test_a_forked_worker_that_outlives_the_killed_run_does_not_keep_it(tmp_path: Path) -> None:
    code = """
import os, signal, sys, time
from run_store.locks import RunLock
lock = RunLock(sys.argv[1])
worker = os.fork()
if worker == 0:
    time.sleep(60)
    os._exit(0)
open(sys.argv[2], "w").write(str(worker))
print("ready", flush=True)
time.sleep(60)
"""
    with started(code, tmp_path, tmp_path / "worker") as process:
        assert is_held(tmp_path)  # the worker's letting go took nothing from its parent
        process.kill()
    worker = int((tmp_path / "worker").read_text())
    try:
        os.kill(worker, 0)
        deadline = time.monotonic() + 60  # the worker may not have come to run yet
        while is_held(tmp_path) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not is_held(tmp_path)
    finally:
        os.kill(worker, signal.SIGKILL)


def test_asking_for_the_holder_does_not_get_in_the_way(tmp_path: Path) -> None:
    asking = """
import sys, time
from run_store.locks import is_held
print("ready", flush=True)
while True:
    is_held(sys.argv[1])
    time.sleep(0.0005)
"""
    RunLock(tmp_path).release()
    with started(asking, tmp_path) as process:
        for _ in range(100):
            RunLock(tmp_path).release()
        process.kill()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"pid": "x", "host": 1}'])
def test_a_holder_that_has_not_said_who_it_is(tmp_path: Path, content: str) -> None:
    with RunLock(tmp_path):
        (tmp_path / "run.lock").write_text(content)
        assert is_held(tmp_path)
        assert holder_of(tmp_path) is not None
        with pytest.raises(UserError, match=r"^another process is working on the run"):
            RunLock(tmp_path)


def test_a_folder_without_a_lock_is_free(tmp_path: Path) -> None:
    assert not is_held(tmp_path)
    assert not is_held(tmp_path / "missing")
    assert list(tmp_path.iterdir()) == []


def test_a_lock_outlasts_the_renaming_of_its_folder(tmp_path: Path) -> None:
    (tmp_path / "v1").mkdir()
    with RunLock(tmp_path / "v1"):
        shutil.move(tmp_path / "v1", tmp_path / "v1.1.partial")
        assert is_held(tmp_path / "v1.1.partial")
        assert not is_held(tmp_path / "v1")


def test_decisions_wait_for_each_other(tmp_path: Path) -> None:
    deciding_one = """
import os, sys
from run_store.locks import deciding
print("ready", flush=True)
path = sys.argv[1] + "/count"
for _ in range(100):
    with deciding(sys.argv[1] + "/identity"):
        count = int(open(path).read())
        open(path, "w").write(str(count + 1))
"""
    (tmp_path / "count").write_text("0")
    processes = [started(deciding_one, tmp_path) for _ in range(3)]
    for process in processes:
        process.communicate()
        assert process.returncode == 0
    assert (tmp_path / "count").read_text() == "300"


def test_a_decision_where_nothing_can_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cannot write to .*: choose another folder"), deciding(tmp_path / "file"):
        pass


def test_a_run_that_cannot_be_locked_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot write to .*missing \(No such file or directory\)"):
        RunLock(tmp_path / "missing")


def test_a_full_disk_does_not_keep_a_run_from_being_locked(small_disk: Path) -> None:
    RunLock(small_disk).release()
    (small_disk / "run.lock").write_text("")
    with pytest.raises(OSError, match="No space left"):
        (small_disk / "filler").write_bytes(bytes(100_000))
    with RunLock(small_disk):
        assert is_held(small_disk)


def test_a_file_system_without_locks_is_told_in_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(handle: int, kind: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    (tmp_path / "run.lock").touch()
    monkeypatch.setattr(fcntl, "flock", refused)
    for use in (RunLock, is_held, lambda folder: deciding(folder).__enter__()):
        with pytest.raises(UserError, match=rf"the file system of {tmp_path} knows no locks \(No locks available\)"):
            use(tmp_path)
