"""Files fetched from elsewhere, in a folder of bounded size that several processes share.

A file's name is the sha256 of its content, so what is there is right, whoever fetched it and from where. While it is
being fetched it is called NAME.partial and has its full length from the beginning: the lengths of all files in the
folder are what it takes, and never more than its size. All else is said by locks on the files, which end with the
process that holds them: an exclusive one means that it is being fetched, a shared one that somebody reads it.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from enum import Enum, auto
from pathlib import Path
from typing import NamedTuple

from run_store import UserError, flush_to_disk
from run_store.atomic import is_disk_full

LOCK_NAME = "lock"
_PARTIAL = ".partial"


class Outcome(Enum):
    """What became of a file that was to be added."""

    THERE = auto()
    """It is in the cache now, or was before."""
    BUSY = auto()
    """Another thread or process is fetching it."""
    FULL = auto()
    """Nothing may go that would make room for it, or nobody wants it any more."""


class Content(NamedTuple):
    """A file by what is in it."""

    sha256: str
    bytes: int


class FileCache:
    """A folder of files, of which the least needed go when room is short. Any number of threads and processes may use
    it at once, whatever they read; it must lie on a disk that knows locks.

    Args:
        folder: made when missing.
        size: bytes that its files take at most, those that are being fetched among them.

    Raises:
        UserError: the folder cannot be made or written to.
    """

    def __init__(self, folder: Path, size: int) -> None:
        self.folder = folder
        self.size = size
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with self._alone():
                for path in folder.glob(f"*{_PARTIAL}"):
                    _remove_unless_locked(path)
        except OSError as error:
            raise UserError(
                f"the cache {folder} cannot be written ({error.strerror}): set data.cache.folder"
            ) from error

    def bytes(self) -> int:
        """What its files take now."""
        with self._alone():  # or a file that gets its name meanwhile may be met under both
            return sum(status.st_size for status in self._files().values())

    def has(self, content: Content) -> bool:
        """Whether the file is there, as far as can be told without a lock."""
        try:
            return os.stat(self.folder / content.sha256).st_size == content.bytes
        except FileNotFoundError:
            return False

    @contextmanager
    def opened(self, contents: Collection[Content]) -> Iterator[list[int] | None]:
        """The handles of some files, none of which goes while the block lasts; None unless all are there."""
        handles = list[int]()
        try:
            with self._alone():
                for content in contents:
                    if not self.has(content):
                        break
                    handles.append(os.open(self.folder / content.sha256, os.O_RDONLY))
                    fcntl.flock(handles[-1], fcntl.LOCK_SH)  # nobody has more than a share while the folder is ours
                    os.utime(handles[-1])
            yield handles if len(handles) == len(contents) else None
        finally:
            for handle in handles:
                os.close(handle)

    def add(
        self,
        content: Content,
        fetch: Callable[[Path], None],
        uses: Mapping[str, int] | None = None,
        soon: int = -1,
        wanted: Callable[[], bool] = lambda: True,
    ) -> Outcome:
        """Fetches a file, if there is room or some can be made.

        Args:
            content: what it is.
            fetch: fills a file of the right length, or raises; then nothing is left of it.
            uses: by sha256, how soon a file is read next: 0 for at once, others in their order. Those that it does not
                name are needed least, the ones first that were not used for longest.
            soon: how soon this one is; only files that are needed later may go for it.
            wanted: asked when all others stand still, before anything goes: whether `uses` still holds.

        Raises:
            UserError: the file is larger than the cache, or the disk is full.
        """
        if content.bytes > self.size:
            raise UserError(
                f"a file of {content.bytes:,} bytes does not fit the cache {self.folder} of {self.size:,}: raise "
                "data.cache.size"
            )
        partial = self.folder / f"{content.sha256}{_PARTIAL}"
        with self._alone():
            if self.has(content):
                return Outcome.THERE
            (self.folder / content.sha256).unlink(missing_ok=True)  # of another length: somebody has cut it
            if not _remove_unless_locked(partial):
                return Outcome.BUSY
            if not wanted() or not self._make_room(content.bytes, uses or {}, soon):
                return Outcome.FULL
            handle = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
            fcntl.flock(handle, fcntl.LOCK_EX)
            os.ftruncate(handle, content.bytes)
        try:
            fetch(partial)
            os.fsync(handle)
            with self._alone():
                os.replace(partial, self.folder / content.sha256)
                fcntl.flock(handle, fcntl.LOCK_UN)
            flush_to_disk(self.folder)
        except BaseException as error:
            with self._alone():
                partial.unlink(missing_ok=True)
            if is_disk_full(error):
                raise UserError(
                    f"no space left on the disk of the cache {self.folder}: free some there, lower data.cache.size or "
                    "set data.cache.folder to another disk"
                ) from error
            raise
        finally:
            os.close(handle)
        return Outcome.THERE

    def wait_for(self, content: Content) -> None:
        """Waits until nobody is fetching a file any more, whatever came of it."""
        with suppress(FileNotFoundError):
            handle = os.open(self.folder / f"{content.sha256}{_PARTIAL}", os.O_RDONLY)
            try:
                fcntl.flock(handle, fcntl.LOCK_SH)
            finally:
                os.close(handle)

    def _make_room(self, wanted: int, uses: Mapping[str, int], soon: int) -> bool:
        files = self._files()
        free = self.size - sum(status.st_size for status in files.values())
        later = len(uses) + 1
        # farthest first; among those of which nothing is known the one that was not used for longest
        order = sorted(files, key=lambda name: (-uses.get(name, later), files[name].st_mtime))
        victims = [name for name in order if uses.get(name, later) > soon and not name.endswith(_PARTIAL)]
        for name in victims:
            if free >= wanted:
                break
            if _remove_unless_locked(self.folder / name):
                free += files[name].st_size
        return free >= wanted

    def _files(self) -> dict[str, os.stat_result]:
        found = {}
        with os.scandir(self.folder) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):
                    if entry.name != LOCK_NAME:
                        found[entry.name] = entry.stat()
        return found

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Nobody else looks for room, adds or removes meanwhile. Held for moments only."""
        handle = os.open(self.folder / LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)


def _remove_unless_locked(path: Path) -> bool:
    """Whether there is no such file any more."""
    try:
        handle = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    else:
        path.unlink()
        return True
    finally:
        os.close(handle)
