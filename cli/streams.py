"""Standard streams as a shell may hand them over: closed, with nobody who reads on, in an encoding of few letters."""

from __future__ import annotations

import io
import os
import sys
from typing import Any, TextIO

STANDARD = {"stdin": "r", "stdout": "w", "stderr": "w"}


def settle_streams(outlive_readers: bool) -> None:
    """Makes standard streams that a command can rely on. To be called before files are opened.

    - One that is closed leads nowhere. Left so, the next file that is opened would have its number, and whatever writes
      to that number, C++ too, would write into that file.
    - A character that the encoding lacks is written as an escape.

    Args:
        outlive_readers: what nobody reads on goes nowhere, in place of a BrokenPipeError: for commands that are about
            more than what they print.
    """
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(number, True)
    os.close(number)
    for name, mode in STANDARD.items():
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode, encoding="utf-8"))
        elif mode == "w" and stream is getattr(sys, f"__{name}__"):  # not what somebody put in its place
            setattr(sys, name, _settled(stream, outlive_readers))


def _settled(stream: io.TextIOWrapper, outlive_readers: bool) -> TextIO:
    if stream.errors == "strict":
        stream.reconfigure(errors="backslashreplace")
    if not outlive_readers or stream.isatty():
        return stream
    stream.flush()
    return io.TextIOWrapper(
        io.BufferedWriter(_Unread(stream.fileno(), "wb", closefd=False)),
        encoding=stream.encoding,
        errors=stream.errors,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


class _Unread(io.FileIO):
    """A file that goes nowhere from the moment on when nobody reads it."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())
            os.close(nowhere)
            return memoryview(data).nbytes
