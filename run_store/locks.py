"""Locks that the kernel frees when their holder dies, however it dies.

They are flocks. On a local disk they are exact. On NFS, Linux carries them out as byte-range locks of the server,
which works between machines that mount it with locking (not with `nolock` or `local_lock`); where it does not, two
machines may take one lock. A file system without locks is refused in one sentence.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType

from run_store.errors import UserError
from run_store.layout import LOCK_NAME

_DECISION_NAME = ".decision.lock"
# Whoever asks for the holder has the lock for an instant; taking it is tried again for longer than that.
_TRIES, _PAUSE = 25, 0.02


@dataclass(frozen=True)
class Holder:
    """The process that works on a run."""

    pid: int
    host: str

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


class RunLock:
    """The right to work on a run: one process has it, until it lets go or dies.

    As a context manager it lets go at the end of the block. A forked child does not keep it alive.

    Args:
        folder: of the run, which must exist.

    Raises:
        UserError: another process has it, the folder cannot be written to, or the file system knows no locks.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self._handle: int | None = _opened(self.folder / LOCK_NAME)
        try:
            self._take(self._handle)
            self._say_who_has_it(self._handle)
        except BaseException:
            self.release()
            raise
        _held.add(self)

    def release(self) -> None:
        """Lets go. The file stays: removing it could take it from under the next holder."""
        handle, self._handle = self._handle, None
        if handle is not None:
            os.close(handle)

    def __enter__(self) -> RunLock:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def _take(self, handle: int) -> None:
        for remaining in reversed(range(_TRIES)):
            if _flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB, self.folder):
                return
            if remaining:
                time.sleep(_PAUSE)
        who = _read_holder(self.folder) or "another process"
        raise UserError(f"{who} is working on the run {self.folder}: wait for it to end, or stop it")

    def _say_who_has_it(self, handle: int) -> None:
        holder = json.dumps(asdict(Holder(os.getpid(), socket.gethostname())))
        with suppress(OSError):  # on a full disk it is held all the same
            os.ftruncate(handle, 0)
            os.pwrite(handle, holder.encode() + b"\n", 0)


def is_held(folder: str | os.PathLike[str]) -> bool:
    """Whether a living process has the lock of the run in `folder`."""
    try:
        handle = os.open(Path(folder) / LOCK_NAME, os.O_RDONLY)
    except (FileNotFoundError, NotADirectoryError):
        return False
    try:
        return not _flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB, Path(folder))
    finally:
        os.close(handle)


def holder_of(folder: str | os.PathLike[str]) -> Holder | None:
    """The living process that works on the run in `folder`."""
    if not is_held(folder):
        return None
    return _read_holder(Path(folder)) or Holder(0, "an unknown host")


@contextmanager
def deciding(folder: str | os.PathLike[str]) -> Iterator[None]:
    """Makes others wait who decide at the same time what to do in an identity's folder, which is made when missing.

    Looking at the variants, claiming one and locking it must be one act, or two starts would train the same thing.

    Raises:
        UserError: the folder cannot be made, or the file system knows no locks.
    """
    with one_at_a_time(Path(folder) / _DECISION_NAME, make_folder=True):
        yield


@contextmanager
def one_at_a_time(path: str | os.PathLike[str], make_folder: bool = False) -> Iterator[None]:
    """Makes others wait who come with the same file, which stays.

    Raises:
        UserError: the file cannot be made, or the file system knows no locks.
    """
    path = Path(path)
    handle = _opened(path, make_folder)
    try:
        _flock(handle, fcntl.LOCK_EX, path.parent)
        yield
    finally:
        os.close(handle)


def _opened(path: Path, make_folder: bool = False) -> int:
    try:
        if make_folder:
            path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise UserError(f"cannot write to {path.parent} ({error.strerror}): choose another folder") from error


def _flock(handle: int, kind: int, folder: Path) -> bool:
    try:
        fcntl.flock(handle, kind)
    except BlockingIOError:
        return False
    except OSError as error:
        raise UserError(
            f"the file system of {folder} knows no locks ({error.strerror}): choose another folder"
        ) from error
    return True


def _read_holder(folder: Path) -> Holder | None:
    try:
        content = json.loads((folder / LOCK_NAME).read_text(encoding="utf-8"))
        return Holder(int(content["pid"]), str(content["host"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None  # it has the lock and has not said who it is yet


_held: weakref.WeakSet[RunLock] = weakref.WeakSet()


def _let_go_in_forked_child() -> None:
    # A worker that outlived a killed run would keep it locked. Closing the copy does not unlock the parent's.
    for lock in list(_held):
        lock.release()


os.register_at_fork(after_in_child=_let_go_in_forked_child)
