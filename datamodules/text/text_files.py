"""Documents from files that globs name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from datamodules.text.bad_rows import BadRowAction, BadRows, text_fault
from datamodules.text.corpus import Corpus, Document
from datamodules.text.file_rows import named_files, rows_of
from datamodules.text.row_formats import FormatName, Row, RowSettings, SampleBy, format_of
from run_store import UserError


class TextFiles(Corpus):
    """Documents from text files, JSON lines, comma- or tab-separated values or Parquet, in the order of their names.

    A text file is a document named by its path below the folder that the patterns share (what stands before their first
    wildcard); a row is named `path:line`, or `path:row` in a Parquet file. A name therefore depends neither on other
    files nor on where the folder lies. Row-wise files are streamed. Texts of white space alone give no document.

    Args:
        files: Patterns: `*`, `?`, `[…]`, and `**` for any number of folders; `~` is the home folder. Files that end in
            .gz, .bz2, .xz or .zst (Python 3.14, or backports.zstd) are decompressed as they are read.
        field: The field or column that holds the text, in files of rows.
        name_field: The field that names a row, text or whole numbers, unique over all files; all names are kept in
            memory to make sure. Null names rows by file and line.
        format: What the files are; `auto` goes by the suffix: .jsonl, .ndjson and .json hold one JSON object a line,
            .csv and .tsv begin with a header and may quote with ", .parquet, and all else is text.
        sample_by: What is a document in a text file: the whole file, each paragraph (blank lines separate them), or
            each line. A whole file is held in memory.
        encoding: Of all files but Parquet, which is UTF-8 by definition.
        bad_rows: `refuse` stops at the first row (or text file) that cannot be read and names file and line; `skip`
            leaves such rows out and tells their number at the end.
    """

    def __init__(
        self,
        files: str | Sequence[str],
        field: str = "text",
        name_field: str | None = None,
        format: FormatName = "auto",
        sample_by: SampleBy = "document",
        encoding: str = "utf-8",
        bad_rows: BadRowAction = "refuse",
    ) -> None:
        self.files = [files] if isinstance(files, str) else list(files)
        self.field = field
        self.name_field = name_field
        self.format: FormatName = format
        self.sample_by: SampleBy = sample_by
        self.encoding = encoding
        self.bad_rows: BadRowAction = bad_rows

    def documents(self) -> Iterator[Document]:
        """Yields the files' documents.

        Raises:
            UserError: a pattern matches no file, a file or a row of it cannot be read, or no file holds any text.
        """
        bad = BadRows(self.bad_rows)
        fields = (self.field,) if self.name_field is None else (self.field, self.name_field)
        settings = RowSettings(fields, self.encoding, self.sample_by, bad)
        files, found, seen = named_files(self.files), False, set[str]()
        try:
            for file_name, path in files:
                is_one_document = self._is_one_document(path)
                for row in rows_of(path, self.format, settings):
                    default = file_name if is_one_document else f"{file_name}:{row.line}"
                    document = self._document(default, path, row, bad)
                    if document is None:
                        continue
                    if self.name_field is not None:
                        _refuse_second(document.name, seen, f"{path}:{row.line}")
                    found = True
                    yield document
        finally:
            bad.tell()
        if not found:
            raise UserError(f"the files of {' and '.join(self.files)} ({len(files)}) hold no text: check `files`")

    def describe(self) -> dict[str, Any]:
        """The settings; which files the patterns match is told apart by the texts themselves."""
        return {
            "class": type(self).__name__,
            "files": self.files,
            "field": self.field,
            "name_field": self.name_field,
            "format": self.format,
            "sample_by": self.sample_by,
            "encoding": self.encoding,
            "bad_rows": self.bad_rows,
        }

    def _document(self, name: str, path: Path, row: Row, bad: BadRows) -> Document | None:
        """A row as a document, of this name unless it has its own; None for blank and for bad rows."""
        text, *rest = row.values
        fault = text_fault(text, self.field)
        if rest and fault is None:
            name = str(rest[0]) if type(rest[0]) is int else rest[0]
            fault = text_fault(name, str(self.name_field))
        if fault is not None:
            bad.met(f"{path}:{row.line}", fault)
            return None
        return Document(name, text) if text.strip() else None

    def _is_one_document(self, path: Path) -> bool:
        is_text = self.format == "text" or (self.format == "auto" and format_of(path) == "text")
        return is_text and self.sample_by == "document"


def _refuse_second(name: str, seen: set[str], place: str) -> None:
    if name in seen:
        raise UserError(f"{place} is named {name!r} like another document: set name_field to a field of unique values")
    seen.add(name)
