"""Text files as streams of decoded characters, compressed or not, in which every undecodable byte can be found."""

from __future__ import annotations

import bz2
import codecs
import gzip
import importlib
import io
import lzma
import re
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, cast

from run_store import UserError

# A decoder that raises says nothing of the line, since it decodes some kilobytes at a time. Each byte that cannot be
# decoded becomes this code point plus its value instead: half of a surrogate pair, which no decoder gives by itself.
_MARK = 0xDC00
_MARKS = re.compile(f"[{chr(_MARK)}-{chr(_MARK + 255)}]")


def _mark(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return "".join(chr(_MARK + byte) for byte in error.object[error.start : error.end]), error.end


codecs.register_error("fulgurite.mark", _mark)


def undecodable(text: str) -> tuple[int, int] | None:
    """Where the first undecodable byte of a text of `open_text` is, and its value; None when there is none."""
    found = None if text.isascii() else _MARKS.search(text)
    return None if found is None else (found.start(), ord(found.group()) - _MARK)


def open_text(path: Path, encoding: str, newline: str | None) -> io.TextIOWrapper:
    """Opens a file for reading; see `undecodable`.

    Args:
        path: Its last suffix tells how it is compressed.
        encoding: One of Python's; UTF-8 may begin with a byte order mark.
        newline: As for `open`.

    Raises:
        UserError: the file cannot be opened, nothing here can decompress it, or the encoding does not exist.
    """
    try:
        codec = codecs.lookup(encoding).name
    except LookupError as error:
        raise UserError(
            f"encoding: Python knows no encoding {encoding!r}: set it to utf-8, latin-1, cp1252…"
        ) from error
    opened = _OPENERS.get(path.suffix.lower(), _open_plain)(path)
    return io.TextIOWrapper(opened, "utf-8-sig" if codec == "utf-8" else codec, "fulgurite.mark", newline)


def without_compression(name: str) -> str:
    """A file's name less the suffix that tells how it is compressed."""
    stem, suffix = Path(name).stem, Path(name).suffix
    return stem if suffix.lower() in _OPENERS else name


def is_damage(error: BaseException) -> bool:
    """Whether the file's content is at fault rather than the machine or a right to read."""
    if isinstance(error, OSError):
        return error.errno is None
    return isinstance(error, (EOFError, zlib.error, lzma.LZMAError)) or "zstd" in type(error).__module__


def _open_plain(path: Path) -> BinaryIO:
    return open(path, "rb")


def _open_zst(path: Path) -> BinaryIO:
    for library in ("compression.zstd", "backports.zstd"):  # the first is part of Python 3.14
        try:
            return cast(BinaryIO, importlib.import_module(library).open(path, "rb"))
        except ImportError:
            continue
    raise UserError(
        f"{path} is compressed with zstd, which this Python cannot read: run pip install backports.zstd, "
        "or compress it with gzip"
    )


_OPENERS: dict[str, Callable[[Path], BinaryIO]] = {
    ".gz": cast(Callable[[Path], BinaryIO], gzip.open),
    ".bz2": cast(Callable[[Path], BinaryIO], bz2.open),
    ".xz": cast(Callable[[Path], BinaryIO], lzma.open),
    ".zst": _open_zst,
}
