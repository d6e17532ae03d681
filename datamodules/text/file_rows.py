"""The files that patterns name, and the rows of each."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from datamodules.text.opening import is_damage
from datamodules.text.row_formats import FormatName, Row, RowSettings, read_rows
from run_store import UserError

_WILDCARD = re.compile(r"[*?\[]")


def named_files(files: Sequence[str]) -> list[tuple[str, Path]]:
    """(name, path) of every file that patterns match, by name: the path below the folder that the patterns share.

    Raises:
        UserError: there is no pattern, or one of them matches no file.
    """
    if not files:
        raise UserError("files: names no pattern: set it to one like corpus/**/*.txt")
    patterns = [os.path.abspath(os.path.expanduser(pattern)) for pattern in files]
    root = os.path.commonpath([_fixed_folder(pattern) for pattern in patterns])
    # By bytes, because a file's name need not be valid text.
    named = {
        os.fsencode(os.path.relpath(path, root)).decode("utf-8", "backslashreplace").replace(os.sep, "/"): Path(path)
        for pattern in patterns
        for path in _matches(pattern)
    }
    return sorted(named.items())


def rows_of(path: Path, format: FormatName, settings: RowSettings) -> Iterator[Row]:
    """Yields the rows of a file; where it is damaged, what is left counts as one bad row.

    Raises:
        UserError: the file or a row of it cannot be read.
    """
    line = 0
    try:
        for row in read_rows(path, format, settings):
            line = row.line
            yield row
    except Exception as error:
        if is_damage(error):
            place = f"{path}:{line} is the last that can be read of it" if line else f"{path} cannot be read"
            settings.bad.met(place, f"(the file is damaged: {error})")
        elif isinstance(error, OSError):
            raise UserError(
                f"{path} cannot be read ({error.strerror}): check it, or leave it out of `files`"
            ) from error
        else:
            raise


def _fixed_folder(pattern: str) -> str:
    """The folder that all matches of an absolute pattern lie below, known from the pattern alone."""
    folder = os.path.dirname(pattern)
    while _WILDCARD.search(folder):
        folder = os.path.dirname(folder)
    return folder


def _matches(pattern: str) -> list[str]:
    """The files that a pattern matches; a name with brackets in it may be meant as it stands."""
    found = [pattern] if os.path.isfile(pattern) else list(filter(os.path.isfile, glob.glob(pattern, recursive=True)))
    if not found and os.path.isdir(pattern):
        raise UserError(f"files: {pattern} is a folder: name the files in it, as in {pattern}/**/*.txt")
    if not found:
        raise UserError(f"files: no file matches {pattern}: check the pattern and the folder it is relative to")
    return found
