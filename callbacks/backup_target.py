"""The folder at an fsspec URL that a run is backed up to.

A checkpoint there is files and, last, their manifest under its final name: without it a folder is no checkpoint, so
that nothing half-copied is ever taken for one. Until then the manifest stands as `manifest.json.partial` and says which
save the files beside it are of; a copy that was broken off goes on from the files that are there in full length.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from remote_files import PARTIAL, RemoteFolder
from run_store.checkpoints import MANIFEST
from run_store.layout import CHECKPOINTS_NAME


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
        self.folder = RemoteFolder(url, inside)
        if self.folder.is_local and not (drive := Path(RemoteFolder(url).at()).parent).is_dir():
            raise FileNotFoundError(f"there is no folder {drive}; is its drive mounted?")

    def read(self, name: str) -> bytes | None:
        """The content of a small file; None when it is missing."""
        return self.folder.read(name)

    def put(self, content: bytes, name: str) -> None:
        """Writes a small file, which appears whole or not at all."""
        self.folder.put(content, name)

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
        for file in sorted(self.folder.names(name), key=lambda file: file != MANIFEST):
            self.folder.remove(f"{name}/{file}")
        self.folder.remove_folder(name)

    def _put_files(self, checkpoint: Path, name: str, manifest: bytes) -> None:
        announced = f"{name}/{MANIFEST}{PARTIAL}"
        if self.read(announced) != manifest:
            self._remove_folder(name)  # files of another save must not be taken for this one's
            self.folder.put_unnamed(manifest, announced)
        for file, described in _files_of(manifest).items():
            if self.folder.size(f"{name}/{file}") != described["bytes"]:
                self.folder.put_file(checkpoint / file, f"{name}/{file}", described["bytes"])


def _place_of(checkpoint: str) -> str:
    return f"{CHECKPOINTS_NAME}/{checkpoint}"


def _files_of(manifest: bytes) -> dict[str, Any]:
    """Size and sha256 of each file; a manifest that cannot be read is of no save."""
    try:
        return dict(json.loads(manifest)["files"])
    except (ValueError, KeyError, TypeError):
        return {}
