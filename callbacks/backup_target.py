"""The folder at an fsspec URL that a run is backed up to.

A checkpoint there is files and, last, their manifest under its final name: without it a folder is no checkpoint, so
that nothing half-copied is ever taken for one. Until then the manifest stands as `manifest.json.partial` and says which
save the files beside it are of; a copy that was broken off goes on from the files that are there in full length.
"""

from __future__ import annotations

import json
import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from run_store import UserError
from run_store.checkpoints import MANIFEST
from run_store.layout import CHECKPOINTS_NAME

PARTIAL = ".partial"


def check_url(url: str, setting: str = "run.backup") -> None:
    """Looks that there is something to write to such a URL with. Nothing is opened.

    Raises:
        UserError: the protocol is unknown, or its package is missing.
    """
    try:
        fsspec.get_filesystem_class(fsspec.utils.get_protocol(url))
    except (ValueError, ImportError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{setting} {shown(url)} cannot be written to ({reason}): choose another URL") from error


def shown(url: str) -> str:
    """The URL without a user's name and password."""
    return re.sub(r"//[^/@]*@", "//", url)


class BackupTarget:
    """A folder somewhere. Whatever goes wrong there is an exception of its file system.

    Args:
        url: an fsspec URL, such as file:///drive/runs, s3://bucket/runs or gs://bucket/runs. Where it is a local path,
            the folder that it stands in must be there: a drive that is not mounted must not be taken for one.
        inside: of the folder, relative to the URL.

    Raises:
        FileNotFoundError: there is no such drive.
    """

    def __init__(self, url: str, inside: str) -> None:
        self.files, base = fsspec.url_to_fs(url)
        if isinstance(self.files, LocalFileSystem) and not Path(base).parent.is_dir():
            raise FileNotFoundError(f"there is no folder {Path(base).parent}; is its drive mounted?")
        self.folder = f"{base.rstrip('/')}/{inside}"

    def read(self, name: str) -> bytes | None:
        """The content of a small file; None when it is missing."""
        try:
            return bytes(self.files.cat_file(self._at(name)))
        except FileNotFoundError:
            return None

    def put(self, content: bytes, name: str) -> None:
        """Writes a small file, which appears whole or not at all."""
        self._make_folder_of(name)
        self.files.pipe_file(self._at(name + PARTIAL), content)
        self._rename(name + PARTIAL, name)

    def put_checkpoint(self, checkpoint: Path) -> bytes:
        """Copies a checkpoint, as far as it is not there yet.

        Returns:
            The manifest that stands there now.

        Raises:
            FileNotFoundError: it was removed here meanwhile.
            OSError: it was saved anew here meanwhile, or a copy has come to another length.
        """
        name = _place_of(checkpoint.name)
        manifest = (checkpoint / MANIFEST).read_bytes()
        there = self.read(f"{name}/{MANIFEST}")
        if there == manifest:
            return manifest
        if there is None or _files_of(there) != _files_of(manifest):
            self._put_files(checkpoint, name, manifest)
        if _files_of((checkpoint / MANIFEST).read_bytes()) != _files_of(manifest):
            raise OSError(f"{checkpoint} was saved anew while it was copied")
        self.put(manifest, f"{name}/{MANIFEST}")
        return manifest

    def remove_checkpoint(self, name: str) -> None:
        """Removes a checkpoint, its manifest first."""
        self._remove_folder(_place_of(name))

    def _remove_folder(self, name: str) -> None:
        inner = [path.rpartition("/")[2] for path in self._inside(name)]
        for file in sorted(inner, key=lambda file: file != MANIFEST):
            self.files.rm_file(self._at(f"{name}/{file}"))
        with suppress(FileNotFoundError, NotImplementedError):  # a bucket knows no folders
            self.files.rmdir(self._at(name))

    def _put_files(self, checkpoint: Path, name: str, manifest: bytes) -> None:
        announced = f"{name}/{MANIFEST}{PARTIAL}"
        if self.read(announced) != manifest:
            self._remove_folder(name)  # files of another save must not be taken for this one's
            self._make_folder_of(announced)
            self.files.pipe_file(self._at(announced), manifest)
        for file, described in _files_of(manifest).items():
            place = self._at(f"{name}/{file}")
            if self._size(place) != described["bytes"]:
                self.files.put_file(str(checkpoint / file), place)
            if (size := self._size(place)) != described["bytes"]:
                raise OSError(f"{file} has come to {size} bytes instead of {described['bytes']}")

    def _at(self, name: str) -> str:
        return f"{self.folder}/{name}"

    def _make_folder_of(self, name: str) -> None:
        self.files.makedirs(self._at(name).rpartition("/")[0], exist_ok=True)

    def _size(self, place: str) -> int | None:
        try:
            return int(self.files.info(place)["size"])
        except FileNotFoundError:
            return None

    def _inside(self, name: str) -> list[str]:
        self.files.invalidate_cache()
        try:
            return [str(path) for path in self.files.ls(self._at(name), detail=False)]
        except FileNotFoundError:
            return []

    def _rename(self, old: str, new: str) -> None:
        # fs.mv would take brackets in a run's name for a pattern
        if isinstance(self.files, LocalFileSystem):
            os.replace(self._at(old), self._at(new))
        else:
            self.files.cp_file(self._at(old), self._at(new))
            self.files.rm_file(self._at(old))


def _place_of(checkpoint: str) -> str:
    return f"{CHECKPOINTS_NAME}/{checkpoint}"


def _files_of(manifest: bytes) -> dict[str, Any]:
    """Size and sha256 of each file; a manifest that cannot be read is of no save."""
    try:
        return dict(json.loads(manifest)["files"])
    except (ValueError, KeyError, TypeError):
        return {}
