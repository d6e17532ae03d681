"""A folder at an fsspec URL."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

PARTIAL = ".partial"


class RemoteFolder:
    """Files below a URL. Whatever goes wrong there is an exception of its file system; see `Retries`.

    It is opened when it is first used, and then belongs to that process: file systems do not outlive a fork. Several
    threads may use it.

    Args:
        url: any that fsspec knows, such as file:///drive/runs, s3://bucket/runs or https://host/runs, or a path.
        inside: a folder, relative to the URL.
    """

    def __init__(self, url: str, inside: str = "") -> None:
        self.url = url
        self.inside = inside
        self._opened: tuple[int, Any, str] | None = None

    def _open(self) -> tuple[int, Any, str]:
        if self._opened is None or self._opened[0] != os.getpid():
            files, base = fsspec.url_to_fs(self.url)
            self._opened = os.getpid(), files, "/".join(filter(None, [base.rstrip("/"), self.inside]))
        return self._opened

    @property
    def files(self) -> Any:
        """The file system."""
        return self._open()[1]

    @property
    def is_local(self) -> bool:
        """Whether it is a folder of this machine, perhaps a mounted one."""
        return isinstance(self.files, LocalFileSystem)

    def at(self, name: str = "") -> str:
        """Where the file system has a file."""
        return "/".join(filter(None, [self._open()[2], name]))

    def url_of(self, name: str) -> str:
        """The URL of a file, for messages."""
        return "/".join(filter(None, [self.url.rstrip("/"), self.inside, name]))

    def read(self, name: str) -> bytes | None:
        """The content of a small file; None when it is missing."""
        try:
            return bytes(self.files.cat_file(self.at(name)))
        except FileNotFoundError:
            return None

    def read_part(self, name: str, start: int, stop: int) -> bytes:
        """Bytes `start` … `stop` - 1 of a file; fewer where it ends before, more from a server that knows no ranges."""
        return bytes(self.files.cat_file(self.at(name), start=start, end=stop))

    def put(self, content: bytes, name: str) -> None:
        """Writes a small file, which appears whole or not at all."""
        self._make_folder_of(name)
        self.files.pipe_file(self.at(name + PARTIAL), content)
        self._rename(name + PARTIAL, name)

    def put_unnamed(self, content: bytes, name: str) -> None:
        """Writes a small file that nobody takes for a finished one."""
        self._make_folder_of(name)
        self.files.pipe_file(self.at(name), content)

    def put_file(self, local: Path, name: str, size: int) -> None:
        """Copies a file of so many bytes there.

        Raises:
            OSError: it has come to another length.
        """
        self._make_folder_of(name)
        self.files.put_file(str(local), self.at(name))
        if (there := self.size(name)) != size:
            raise OSError(f"{name} has come to {there} bytes instead of {size}")

    def size(self, name: str) -> int | None:
        """Bytes of a file; None when it is missing, or its server does not say."""
        self.files.invalidate_cache()
        try:
            size = self.files.info(self.at(name))["size"]
        except FileNotFoundError:
            return None
        return None if size is None else int(size)

    def names(self, inside: str = "") -> list[str]:
        """The files and folders in a folder; none when it is missing."""
        self.files.invalidate_cache()
        try:
            found = self.files.ls(self.at(inside), detail=False)
        except FileNotFoundError:
            return []
        return [str(path).rstrip("/").rpartition("/")[2] for path in found]

    def remove(self, name: str) -> None:
        """Removes a file; nothing when it is missing."""
        with suppress(FileNotFoundError):
            self.files.rm_file(self.at(name))

    def remove_folder(self, name: str) -> None:
        """Removes an empty folder, where folders are more than parts of names."""
        with suppress(FileNotFoundError, NotImplementedError):
            self.files.rmdir(self.at(name))

    def _make_folder_of(self, name: str) -> None:
        self.files.makedirs(self.at(name).rpartition("/")[0], exist_ok=True)

    def _rename(self, old: str, new: str) -> None:
        # fs.mv would take brackets in a run's name for a pattern
        if self.is_local:
            os.replace(self.at(old), self.at(new))
        else:
            self.files.cp_file(self.at(old), self.at(new))
            self.files.rm_file(self.at(old))
