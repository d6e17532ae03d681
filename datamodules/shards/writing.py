"""Where a store is written: a folder, or a URL that several machines may share and nothing else."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from datamodules.shards.claim import Claim, swept
from datamodules.shards.files import Place, in_words, opened
from datamodules.shards.format import StoredFile
from remote_files import Retries, is_url
from run_store import UserError, atomic_file, sha256_of

OWNER_NAME = ".writing"
"""Says who writes a store that several processes write, or one at a URL."""


class WritingPlace(ABC):
    """A place that takes the files of a store.

    One process claims it for all that write the store together, and the others join. Files of a shard are made in
    `workshop`, and belong to the store once they are kept.
    """

    workshop: Path
    seconds_between_looks: float
    """At what others write there."""

    def __init__(self, name: str) -> None:
        self.name = name
        """For messages."""

    @abstractmethod
    def claim(self) -> None:
        """Keeps out others. Raises a UserError where that cannot be."""

    @abstractmethod
    def sweep(self, keep: Collection[str] = ()) -> None:
        """Removes what a killed writer left, but files of some names; raises a UserError where there are others."""

    @abstractmethod
    def share(self) -> str:
        """Lets in those who join, which it gives a word for that."""

    @abstractmethod
    def join(self, word: str) -> None:
        """Takes part in the claim of another process. Raises a UserError where that one claimed another place."""

    @abstractmethod
    def release(self) -> None:
        """Lets others in; whoever calls it twice does no harm."""

    @abstractmethod
    def read(self, name: str) -> bytes | None:
        """The content of a small file; None when it is missing."""

    @abstractmethod
    def write(self, name: str, content: bytes) -> None:
        """Writes a small file, whole or not at all."""

    @abstractmethod
    def names(self) -> list[str]:
        """The files that are there, hidden ones apart."""

    @abstractmethod
    def remove(self, name: str) -> None:
        """Removes a file; nothing when it is missing."""

    @abstractmethod
    def keep(self, files: Collection[StoredFile], then: Callable[[], None]) -> None:
        """Takes files from the workshop into the store and calls `then`, perhaps later, but in order."""

    @abstractmethod
    def settle(self) -> None:
        """Waits until what was to be kept is kept, and raises what went wrong."""

    @abstractmethod
    def is_sound(self, file: StoredFile) -> bool:
        """Whether a file that was kept is there as it was."""

    @abstractmethod
    def free_bytes(self) -> int | None:
        """Room for more; None where nobody knows."""


class LocalPlace(WritingPlace):
    """A folder, which every process must see."""

    seconds_between_looks = 0.2
    _seconds_until_seen = 60.0  # a network file system may show new files that late

    def __init__(self, folder: Path) -> None:
        super().__init__(str(folder))
        self.workshop = folder
        self._claim: Claim | None = None

    def claim(self) -> None:
        self._claim = Claim(self.workshop)

    def sweep(self, keep: Collection[str] = ()) -> None:
        assert self._claim is not None
        self._claim.sweep(keep)
        self.remove(OWNER_NAME)

    def share(self) -> str:
        assert self._claim is not None
        self._claim.share()
        word = uuid.uuid4().hex
        self.write(OWNER_NAME, word.encode())
        return word

    def join(self, word: str) -> None:
        end = time.monotonic() + self._seconds_until_seen
        while self.read(OWNER_NAME) != word.encode():
            if not self.workshop.is_dir() or time.monotonic() > end:
                raise UserError(
                    f"the processes that are to write the store {self.name} do not share that folder: choose one on a "
                    "disk that all nodes see, or a URL"
                )
            time.sleep(self.seconds_between_looks)
        self._claim = Claim.shared(self.workshop)

    def release(self) -> None:
        if self._claim is not None:
            self._claim.release()

    def read(self, name: str) -> bytes | None:
        try:
            return (self.workshop / name).read_bytes()
        except FileNotFoundError:
            return None

    def write(self, name: str, content: bytes) -> None:
        with atomic_file(self.workshop / name) as temporary:
            temporary.write_bytes(content)

    def names(self) -> list[str]:
        return sorted(path.name for path in self.workshop.iterdir() if not path.name.startswith("."))

    def remove(self, name: str) -> None:
        (self.workshop / name).unlink(missing_ok=True)

    def keep(self, files: Collection[StoredFile], then: Callable[[], None]) -> None:
        then()

    def settle(self) -> None:
        pass

    def is_sound(self, file: StoredFile) -> bool:
        path = self.workshop / file.name
        return path.is_file() and path.stat().st_size == file.bytes and sha256_of(path) == file.sha256

    def free_bytes(self) -> int | None:
        return shutil.disk_usage(self.workshop).free


class RemotePlace(WritingPlace):
    """A URL. Shards are made in a temporary folder and copied there in the background, one behind the other, while the
    next is being made; there are two on the disk of a process at most.

    There are no locks at a URL. Whoever claims it leaves a word there, which every writer looks at before it says that
    a shard is kept: the one who came before stops, with a message.

    Args:
        url: any that fsspec can write to.
    """

    seconds_between_looks = 2.0

    def __init__(self, url: str) -> None:
        super().__init__(in_words(url))
        self.folder = opened(url)
        self._retries = Retries()
        self._word = b""
        self._workshop: tempfile.TemporaryDirectory[str] | None = None
        self._copies: ThreadPoolExecutor | None = None
        self._copy: Future[None] | None = None

    def claim(self) -> None:
        self._open()

    def sweep(self, keep: Collection[str] = ()) -> None:
        for name in swept(self.names(), keep, self.name):
            self.remove(name)
        self._word = uuid.uuid4().hex.encode()
        self.write(OWNER_NAME, self._word)

    def share(self) -> str:
        return self._word.decode()

    def join(self, word: str) -> None:
        self._word = word.encode()
        if self.read(OWNER_NAME) != self._word:
            raise UserError(
                f"the processes that are to write the store {self.name} do not find each other there: choose a URL "
                "that means the same to all nodes"
            )
        self._open()

    def release(self) -> None:
        if self._copies is not None:
            self._copies.shutdown()
            self._copies = None
        if self._workshop is not None:
            self._workshop.cleanup()
            self._workshop = None

    def read(self, name: str) -> bytes | None:
        return self._retries(lambda: self.folder.read(name), self.folder.url_of(name))

    def write(self, name: str, content: bytes) -> None:
        self._retries(lambda: self.folder.put(content, name), self.folder.url_of(name), "written")

    def names(self) -> list[str]:
        found = self._retries(self.folder.names, self.folder.url)
        return sorted(name for name in found if name and not name.startswith("."))

    def remove(self, name: str) -> None:
        self._retries(lambda: self.folder.remove(name), self.folder.url_of(name), "removed")

    def keep(self, files: Collection[StoredFile], then: Callable[[], None]) -> None:
        self.settle()
        if self._copies is None:
            self._copies = ThreadPoolExecutor(1, thread_name_prefix="fulgurite-copy")
        self._copy = self._copies.submit(self._keep, list(files), then)

    def settle(self) -> None:
        copy, self._copy = self._copy, None
        if copy is not None:
            copy.result()

    def is_sound(self, file: StoredFile) -> bool:
        # its content was compared when it was copied; to do so again would take as long as to make it
        size = self._retries(lambda: self.folder.size(file.name), self.folder.url_of(file.name))
        return size == file.bytes

    def free_bytes(self) -> int | None:
        return None

    def _open(self) -> None:
        self._workshop = tempfile.TemporaryDirectory(prefix="fulgurite-store-", ignore_cleanup_errors=True)
        self.workshop = Path(self._workshop.name)

    def _keep(self, files: list[StoredFile], then: Callable[[], None]) -> None:
        for file in files:
            path = self.workshop / file.name
            put = lambda path=path, file=file: self.folder.put_file(path, file.name, file.bytes)  # noqa: E731
            self._retries(put, self.folder.url_of(file.name), "written")
            path.unlink()
        if self.read(OWNER_NAME) != self._word:
            raise UserError(
                f"another program has begun to write the store {self.name}: let it, or end it and start this one again"
            )
        then()


def writing_place(place: Place) -> WritingPlace:
    """What takes the files of a store at a path or a URL.

    Raises:
        UserError: nothing here speaks the protocol of the URL.
    """
    return RemotePlace(os.fspath(place)) if is_url(place) else LocalPlace(Path(place))
