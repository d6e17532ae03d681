"""Paths as people write them on other systems, in one form."""

from __future__ import annotations

import hashlib
import os
import re

from run_store.errors import UserError

LONGEST_COMPONENT = 230
"""Bytes of a name: most file systems take 255, and while a file is being written its name is longer."""
_DIGEST = 12
_EXTENDED_SHARE = re.compile(r"^[\\/]{2}\?[\\/]UNC[\\/]", re.IGNORECASE)
_EXTENDED = re.compile(r"^[\\/]{2}\?[\\/]")
_SHARE = re.compile(r"^//(?!\.{1,2}/)([^/]+)/+(?!\.{1,2}(?:/|$))([^/]+)(?=/|$)")
_DRIVE = re.compile(r"^([A-Za-z]):(/*)")


def normalised(path: str | os.PathLike[str]) -> str:
    r"""A path with forward slashes, without empty parts and dots, and with no name that is too long for a file system.

    A drive's letter is large (`c:\runs` → `C:/runs`); a share keeps both slashes (`\\server\share\x` →
    `//server/share/x`); the prefixes `\\?\` and `\\?\UNC\` go. A name of more than 230 bytes keeps its beginning, and
    a hash of all of it stands behind, so that it is the same at every time and two names stay two. Nothing is looked up
    on a disk, `..` stays, and what is in this form already is left as it is.
    """
    text, root = _without_prefix(os.fspath(path)).replace("\\", "/"), ""
    if share := _SHARE.match(text):
        root, text = f"//{_shortened(share[1])}/{_shortened(share[2])}", text[share.end() :]
    elif drive := _DRIVE.match(text):
        root, text = f"{drive[1].upper()}:{'/' if drive[2] else ''}", text[drive.end() :]
    elif text.startswith("/"):
        root = "/"
    parts = [_shortened(part) for part in text.split("/") if part not in ("", ".")]
    if root.startswith("//") and parts:
        root += "/"
    elif not root and parts and _DRIVE.match(parts[0]):
        root = "./"  # a folder here, whatever it is called
    return f"{root}{'/'.join(parts)}" or "."


def place_here(path: str | os.PathLike[str], setting: str) -> str:
    """A path in normal form that means something on this system.

    Args:
        path: as a person gave it.
        setting: where, for the message.

    Raises:
        UserError: it names a drive or a share of Windows, and this is another system.
    """
    text = os.fspath(path)
    if os.name != "nt" and (_DRIVE.match(text) or text.startswith("\\\\")):
        raise UserError(f"{setting} is {text}, a place of Windows, which this machine has not: choose another")
    return normalised(text)


def _without_prefix(text: str) -> str:
    """What stands behind the prefixes of extended paths, however many there are."""
    while found := _EXTENDED_SHARE.match(text) or _EXTENDED.match(text):
        is_share = found.re is _EXTENDED_SHARE
        text = ("//" if is_share else "") + text[found.end() :]
    return text


def _shortened(name: str) -> str:
    content = name.encode("utf-8", "surrogatepass")
    if len(content) <= LONGEST_COMPONENT:
        return name
    digest = hashlib.sha256(content).hexdigest()[:_DIGEST]
    return f"{content[: LONGEST_COMPONENT - _DIGEST - 1].decode('utf-8', 'ignore')}~{digest}"
