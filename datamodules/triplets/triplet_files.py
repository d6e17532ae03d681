"""Triplets from files that globs name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from datamodules.text.bad_rows import BadRowAction, BadRows
from datamodules.text.file_rows import named_files, rows_of
from datamodules.text.row_formats import RowSettings, format_of
from datamodules.triplets.columns import USUAL_COLUMNS, BadFieldError, TripletColumns
from datamodules.triplets.source import Example, TripletSource
from run_store import UserError, sha256_of
from run_store.fingerprints import fingerprint

TripletFormat = Literal["auto", "jsonl", "csv", "tsv", "parquet"]


class TripletFiles(TripletSource):
    """Triplets, pairs or scored pairs from JSON lines, comma- or tab-separated values or Parquet, a row each, in the
    order of the files' names.

    Args:
        files: Patterns: `*`, `?`, `[…]`, and `**` for any number of folders; `~` is the home folder. Files that end in
            .gz, .bz2, .xz or .zst (Python 3.14, or backports.zstd) are decompressed as they are read.
        columns: Which columns hold what.
        format: What the files are; `auto` goes by the suffix: .jsonl, .ndjson, .json, .csv, .tsv, .parquet.
        encoding: Of all files but Parquet, which is UTF-8 by definition.
        bad_rows: `refuse` stops at the first bad row and names file and line; `skip` leaves such rows out and tells
            their number.
    """

    def __init__(
        self,
        files: str | Sequence[str],
        columns: TripletColumns = USUAL_COLUMNS,
        format: TripletFormat = "auto",
        encoding: str = "utf-8",
        bad_rows: BadRowAction = "refuse",
    ) -> None:
        self.files = [files] if isinstance(files, str) else list(files)
        self.columns = columns
        self.format: TripletFormat = format
        self.encoding = encoding
        self.bad_rows: BadRowAction = bad_rows

    def read(self, bad: BadRows) -> Iterator[Example]:
        """Yields the files' rows.

        Raises:
            UserError: a pattern matches no file, a file cannot be read or lacks a column, or a row is bad and those are
                refused.
        """
        named_by = self.columns.settings()
        settings = RowSettings(tuple(named_by), self.encoding, "line", bad, named_by)
        for _, path in named_files(self.files):
            self._refuse_text(path)
            faults, empty = bad.count, True
            for row in rows_of(path, self.format, settings):
                empty = False
                place = f"{path}:{row.line}"
                try:
                    yield self.columns.example(row.values, place)
                except BadFieldError as error:
                    bad.met(place, str(error))
            if empty and bad.count == faults:
                bad.met(f"{path}:1", "begins a file without rows")

    def describe(self) -> dict[str, Any]:
        return {
            "class": type(self).__name__,
            "files": self.files,
            "columns": asdict(self.columns),
            "format": self.format,
            "encoding": self.encoding,
            "bad_rows": self.bad_rows,
        }

    def fingerprint(self) -> str:
        """Of the files' names, contents and order.

        Raises:
            UserError: a pattern matches no file, or a file cannot be read.
        """
        return fingerprint([[name, _sha256(path)] for name, path in named_files(self.files)])

    def _refuse_text(self, path: Path) -> None:
        if self.format == "auto" and format_of(path) == "text":
            raise UserError(
                f"{path} has no suffix of a file of rows: set `format` to jsonl, csv, tsv or parquet, or leave it out "
                "of `files`"
            )


def _sha256(path: Path) -> str:
    try:
        return sha256_of(path)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): check it, or leave it out of `files`") from error
