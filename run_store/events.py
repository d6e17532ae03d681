"""A file of JSON lines that only grows, and that a kill in the middle of a line does not spoil."""

from __future__ import annotations

import errno
import fcntl
import json
import os
from collections.abc import Mapping
from typing import Any

from run_store.errors import UserError

_BLOCK = 4096


def append_event(path: str | os.PathLike[str], event: Mapping[str, Any]) -> None:
    """Appends one line and flushes it to the disk; first removes a line that a killed writer has left unfinished.

    Raises:
        UserError: the disk is full; what was there before is untouched.
    """
    line = json.dumps(event, ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n"
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)  # or one writer could cut off what another is about to finish
        end = _end_of_whole_lines(handle)
        os.ftruncate(handle, end)
        try:
            written = 0
            while written < len(line):
                written += os.write(handle, line[written:])
            os.fsync(handle)
        except OSError as error:
            os.ftruncate(handle, end)
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise UserError(f"no space left on the disk of {path}: free some space there") from error
            raise
    finally:
        os.close(handle)


def read_events(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """All whole lines, oldest first; a torn last line and lines that are no JSON object are passed over."""
    return read_events_from(path, 0)[0]


def read_events_from(path: str | os.PathLike[str], offset: int) -> tuple[list[dict[str, Any]], int]:
    """The whole lines from `offset` on, as `read_events`, and the offset behind them, to go on from.

    A file that has become shorter than `offset` is another one, and is read from its beginning.
    """
    try:
        with open(path, "rb") as file:
            offset = offset if offset <= os.fstat(file.fileno()).st_size else 0
            file.seek(offset)
            content = file.read()
    except (FileNotFoundError, NotADirectoryError):
        return [], 0
    whole = content[: content.rfind(b"\n") + 1]
    events = (_parsed(line) for line in whole.splitlines())
    return [event for event in events if event is not None], offset + len(whole)


def end_of_events(path: str | os.PathLike[str]) -> int:
    """The offset behind the last whole line, from which `read_events_from` finds what comes next."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except (FileNotFoundError, NotADirectoryError):
        return 0
    try:
        return _end_of_whole_lines(handle)
    finally:
        os.close(handle)


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) else None


def _end_of_whole_lines(handle: int) -> int:
    """The offset behind the last newline."""
    end = os.fstat(handle).st_size
    while end > 0:
        start = max(0, end - _BLOCK)
        newline = os.pread(handle, end - start, start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        end = start
    return 0
