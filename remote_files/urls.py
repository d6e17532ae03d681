"""URLs of folders: told from paths, checked before they are needed, and shown without secrets."""

from __future__ import annotations

import os
import re

import fsspec

from run_store import UserError

# a chain such as simplecache::s3://bucket/store is one, too; a drive of Windows (C:/runs) is none
_URL = re.compile(r"[A-Za-z][\w+.-]*(::|://)")


def is_url(place: str | os.PathLike[str]) -> bool:
    """Whether a place is named by a URL rather than by a path."""
    return _URL.match(os.fspath(place)) is not None


def check_url(url: str, setting: str) -> None:
    """Looks that there is something to reach such a URL with. Nothing is opened.

    Raises:
        UserError: the protocol is unknown, or its package is missing.
    """
    try:
        fsspec.get_filesystem_class(fsspec.utils.get_protocol(url))
    except (ValueError, ImportError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{setting} {shown(url)} cannot be reached ({reason}): choose another URL") from error


def shown(url: str) -> str:
    """The URL without a user's name and password."""
    return re.sub(r"//[^/@]*@", "//", url)
