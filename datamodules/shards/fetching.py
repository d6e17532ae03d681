"""Files of a store from its URL into the cache, part by part."""

from __future__ import annotations

import hashlib
from pathlib import Path
from threading import Event

from datamodules.shards.format import StoredFile
from remote_files import RemoteFolder, Retries, shown
from run_store import UserError

PART_BYTES = 8 * 2**20
"""What is asked for at a time: a second on a slow line, and all that a cut costs."""


class FetchStopped(Exception):  # noqa: N818
    """Nobody wants the file any more."""


class Fetcher:
    """Fetches files of a store and compares them with the sha256 that its manifest has of them.

    Any number of threads may use it at once; each has one part in memory.

    Args:
        folder: of the store.
        retries: of each part; the default ones pause no longer than until `stopping` is set.
        part_bytes: asked for at a time.
    """

    def __init__(self, folder: RemoteFolder, retries: Retries | None = None, part_bytes: int = PART_BYTES) -> None:
        self.folder = folder
        self.part_bytes = part_bytes
        self.stopping = Event()
        self._retries = retries or Retries(sleep=self.stopping.wait)

    def fetch(self, file: StoredFile, into: Path) -> None:
        """Fills a local file.

        Raises:
            UserError: it is missing there, forbidden, shorter than it was or of another content, or the line fails.
            FetchStopped: `stopping` was set.
        """
        for _ in range(2):  # what went wrong on the way will not do so twice
            if self._sha256_of_fetched(file, into) == file.sha256:
                return
        raise UserError(
            f"{self._url(file)} is damaged (its sha256 is not the one that was written): put the original back or "
            "extract the store again"
        )

    def read(self, file: StoredFile) -> bytes:
        """The content of a file that fits memory.

        Raises:
            UserError: as `fetch`.
        """
        for _ in range(2):
            content = b"".join(self._part(file, start) for start in range(0, file.bytes, self.part_bytes))
            if hashlib.sha256(content).hexdigest() == file.sha256:
                return content
        raise UserError(f"{self._url(file)} is damaged (its sha256 is not the one that was written): put it back")

    def _sha256_of_fetched(self, file: StoredFile, into: Path) -> str:
        digest = hashlib.sha256()
        with into.open("r+b") as target:
            for start in range(0, file.bytes, self.part_bytes):
                part = self._part(file, start)
                digest.update(part)
                target.write(part)
        return digest.hexdigest()

    def _part(self, file: StoredFile, start: int) -> bytes:
        stop = min(start + self.part_bytes, file.bytes)

        if self.stopping.is_set():
            raise FetchStopped

        def read() -> bytes:
            part = self.folder.read_part(file.name, start, stop)
            if len(part) < stop - start:
                raise EOFError(f"{start + len(part):,} of {file.bytes:,} bytes came")
            return part

        try:
            part = self._retries(read, self.folder.url_of(file.name))
        except FileNotFoundError:
            raise UserError(f"{self._url(file)} is missing: put it back or extract the store again") from None
        if len(part) > stop - start:
            raise UserError(
                f"{self._url(file)} came as a whole where a part of it was asked for: serve the store by a server that "
                "knows ranges"
            )
        return part

    def _url(self, file: StoredFile) -> str:
        return shown(self.folder.url_of(file.name))
