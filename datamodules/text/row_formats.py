"""Files as rows: text by file, paragraph or line, JSON lines, comma- or tab-separated values, Parquet."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple, TextIO

from datamodules.text.bad_rows import BadRows
from datamodules.text.opening import open_text, undecodable, without_compression
from run_store import UserError, nearest

FormatName = Literal["auto", "text", "jsonl", "csv", "tsv", "parquet"]
SampleBy = Literal["document", "paragraph", "line"]

# An opening quote that is never closed makes one field of the rest of the file: found here rather than by the machine
# running out of memory.
LONGEST_CSV_FIELD = 1 << 28
ROWS_A_BATCH = 256  # of Parquet, decoded at a time


class Row(NamedTuple):
    """One row of a file; what its fields hold is checked by whoever asked for them."""

    line: int
    """1-based line at which it begins, or its 1-based number in a Parquet file."""
    values: tuple[Any, ...]
    """The fields asked for, in that order; of a text file the text alone."""


class RowSettings(NamedTuple):
    """What is to be read of a file, and how."""

    fields: tuple[str, ...]
    encoding: str
    sample_by: SampleBy
    bad: BadRows
    named_by: Mapping[str, str] = {}
    """The setting that names a field, where that is not `field`."""

    def place_of(self, path: Path, field: str, columns: list[str]) -> int:
        """Where a column is among those of a file.

        Raises:
            UserError: it is not there.
        """
        if field not in columns:
            setting = self.named_by.get(field, "field")
            raise UserError(f"{path}:1 has no column {field!r}: set `{setting}` to {nearest(field, columns)}")
        return columns.index(field)


def format_of(path: Path) -> FormatName:
    """A file's format by its name: what has no suffix of a row-wise format is text."""
    return _SUFFIXES.get(Path(without_compression(path.name)).suffix.lower(), "text")


def read_rows(path: Path, name: FormatName, settings: RowSettings) -> Iterator[Row]:
    """Yields the rows of a file one by one, with no more of it in memory than a row (Parquet: some) needs.

    Raises:
        UserError: the file cannot be read as this format, lacks a field, or holds a bad row where those are refused.
        EOFError | OSError | zlib.error | lzma.LZMAError: see `opening.is_damage`.
    """
    return _READERS[format_of(path) if name == "auto" else name](path, settings)


def _text(path: Path, settings: RowSettings) -> Iterator[Row]:
    with open_text(path, settings.encoding, newline=None) as file:
        rows = {"document": _whole, "paragraph": _paragraphs, "line": _lines}[settings.sample_by](file)
        for line, text in rows:
            if not _is_bad(path, line, text, settings):
                yield Row(line, (text,))


def _whole(file: TextIO) -> Iterator[tuple[int, str]]:
    yield 1, file.read()


def _lines(file: TextIO) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(file, start=1):
        yield number, line.removesuffix("\n")


def _paragraphs(file: TextIO) -> Iterator[tuple[int, str]]:
    """What blank lines separate, each with the number of its first line."""
    first, lines = 1, list[str]()
    for number, line in enumerate(file, start=1):
        if line.strip():
            first = first if lines else number
            lines.append(line)
        elif lines:
            yield first, "".join(lines).removesuffix("\n")
            lines = []
    if lines:
        yield first, "".join(lines).removesuffix("\n")


def _json_lines(path: Path, settings: RowSettings) -> Iterator[Row]:
    with open_text(path, settings.encoding, newline="\n") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip() or _is_bad(path, number, line, settings):
                continue
            try:
                values = _json_values(line, settings.fields)
            except _JSONFaultError as error:
                settings.bad.met(f"{path}:{number}", str(error))
            else:
                yield Row(number, values)


class _JSONFaultError(Exception):
    """The rest of a sentence about a line."""


def _json_values(line: str, fields: tuple[str, ...]) -> tuple[Any, ...]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise _JSONFaultError(f"is not valid JSON ({error.msg} at character {error.colno})") from error
    except (ValueError, RecursionError) as error:  # a number of too many digits, brackets without end
        raise _JSONFaultError(f"cannot be read as JSON ({str(error).partition(';')[0]})") from error
    if not isinstance(row, dict):
        raise _JSONFaultError(f"is no JSON object but holds {type(row).__name__}; every line is to be one object")
    for field in fields:
        if field not in row:
            raise _JSONFaultError(f"has no field {field!r} (it has {nearest(field, row) or 'none'})")
    return tuple(row[field] for field in fields)


def _separated(path: Path, settings: RowSettings, delimiter: str) -> Iterator[Row]:
    csv.field_size_limit(max(csv.field_size_limit(), LONGEST_CSV_FIELD))
    with open_text(path, settings.encoding, newline="") as file:
        rows = _csv_rows(path, csv.reader(file, delimiter=delimiter, strict=True), settings)
        header = next(rows, None)
        if header is None:
            return
        columns = [settings.place_of(path, field, header[1]) for field in settings.fields]
        for line, row in rows:
            if len(row) == len(header[1]):
                yield Row(line, tuple(row[column] for column in columns))
            else:
                fault = f"has {len(row)} columns where the header has {len(header[1])}"
                settings.bad.met(f"{path}:{line}", fault)


def _csv_rows(path: Path, reader: Any, settings: RowSettings) -> Iterator[tuple[int, list[str]]]:
    """Every row that is not blank, with the line at which it begins."""
    while True:
        line = reader.line_num + 1
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            settings.bad.met(f"{path}:{line}", f"begins a row that cannot be read ({error})")
            continue
        if row and not _is_bad(path, line, "\0".join(row), settings):
            yield line, row


def _parquet(path: Path, settings: RowSettings) -> Iterator[Row]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise UserError(f"{path} is a Parquet file, which needs pyarrow: run pip install pyarrow") from error
    if path.name != without_compression(path.name):
        raise UserError(f"{path} is a Parquet file inside a compressed file: decompress it first")
    try:
        with pyarrow.parquet.ParquetFile(path, pre_buffer=False) as file:  # or it holds the whole file
            for field in settings.fields:
                settings.place_of(path, field, file.schema_arrow.names)
            yield from _parquet_rows(path, file, settings)
    except pyarrow.ArrowException as error:
        raise EOFError(str(error).partition("\n")[0].rstrip(".")) from error


def _parquet_rows(path: Path, file: Any, settings: RowSettings) -> Iterator[Row]:
    fields = list(settings.fields)
    number = 0
    for batch in file.iter_batches(ROWS_A_BATCH, columns=fields):
        for values in zip(*(batch.column(field) for field in fields), strict=True):
            number += 1
            try:
                row = Row(number, tuple(value.as_py() for value in values))
            except UnicodeDecodeError as error:
                settings.bad.met(
                    f"{path}:{number}", f"holds a text that is not UTF-8 (byte 0x{error.object[error.start]:02X})"
                )
            else:
                yield row


def _is_bad(path: Path, line: int, text: str, settings: RowSettings) -> bool:
    """Whether bytes of a text that begins at `line` could not be decoded."""
    found = undecodable(text)
    if found is None:
        return False
    place, byte = found
    line += text.count("\n", 0, place)
    settings.bad.met(f"{path}:{line}", f"is not {settings.encoding} (byte 0x{byte:02X}); `encoding` names another one")
    return True


_SUFFIXES: dict[str, FormatName] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
}
_READERS: dict[FormatName, Callable[[Path, RowSettings], Iterator[Row]]] = {
    "text": _text,
    "jsonl": _json_lines,
    "csv": partial(_separated, delimiter=","),
    "tsv": partial(_separated, delimiter="\t"),
    "parquet": _parquet,
}
