"""The small files of a store, wherever it lies."""

from __future__ import annotations

import os
from pathlib import Path

from remote_files import RemoteFolder, Retries, check_url, is_url, shown

Place = str | os.PathLike[str]
"""Of a store: a folder's path, or any URL that fsspec knows."""


def place_of(store: str) -> str | Path:
    """The setting of a store as a path, or as the URL that it is."""
    return store if is_url(store) else Path(store)


def in_words(place: Place) -> str:
    """A place for messages, without passwords."""
    return shown(os.fspath(place)) if is_url(place) else os.fspath(place)


def read_file(place: Place, name: str, retries: Retries | None = None) -> bytes | None:
    """The content of a file of a store; None when it is missing.

    Args:
        place: of the store.
        name: of the file.
        retries: at a URL.

    Raises:
        UserError: the URL cannot be reached.
    """
    if is_url(place):
        folder = opened(os.fspath(place))
        return (retries or Retries())(lambda: folder.read(name), folder.url_of(name))
    try:
        return Path(place, name).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None


def opened(url: str) -> RemoteFolder:
    """The folder of a store at a URL.

    Raises:
        UserError: nothing here speaks its protocol.
    """
    check_url(url, "the store's URL")
    return RemoteFolder(url)
