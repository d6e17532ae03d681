"""Rows of a dataset of the Hugging Face hub, or of files that its library reads."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from run_store import UserError, nearest

ROWS_A_BATCH = 256


@dataclass(frozen=True)
class DatasetRows:
    """A dataset's rows in its own order, streamed or not.

    Attributes:
        name: A dataset of the hub, a local folder, or a builder such as `json` with `data_files`.
        split: As the dataset calls it.
        config: Which of the dataset's configurations.
        data_files: Paths, patterns or addresses of the files to read.
        revision: Branch, tag or commit on the hub.
        streaming: Read without downloading everything first.
    """

    name: str
    split: str
    config: str | None = None
    data_files: str | Sequence[str] | None = None
    revision: str | None = None
    streaming: bool = False

    @property
    def label(self) -> str:
        """What it is, for messages."""
        return f"the dataset {self.name!r}" if self.config is None else f"the dataset {self.name!r} ({self.config})"

    @property
    def short_name(self) -> str:
        """Its name, of a local folder without where that lies."""
        folder = Path(self.name).expanduser()
        return folder.resolve().name if folder.is_dir() else self.name

    def read(self, fields: Mapping[str, str]) -> Iterator[tuple[Any, ...]]:
        """Yields what the columns hold, row by row.

        Args:
            fields: the columns, each with the setting that names it.

        Raises:
            UserError: the library is missing, the dataset cannot be loaded or read on, or it lacks a column.
        """
        dataset = self._load()
        if dataset.column_names is not None:  # a stream may not know its columns before its first row
            self._refuse_missing(fields, dataset.column_names)
            dataset = dataset.select_columns(list(fields))
        for batch in self._explained(dataset.iter(ROWS_A_BATCH)):
            self._refuse_missing(fields, batch)
            yield from zip(*(batch[field] for field in fields), strict=True)

    def _load(self) -> Any:
        try:
            import datasets
        except ImportError as error:
            raise UserError(
                f"{self.label} needs the library datasets: run pip install 'datasets>=4', or read files instead"
            ) from error
        folder = Path(self.name).expanduser()
        try:
            return datasets.load_dataset(
                str(folder) if folder.is_dir() else self.name,
                self.config,
                data_files=self.data_files,
                split=self.split,
                revision=self.revision,
                streaming=self.streaming,
            )
        except Exception as error:
            raise UserError(
                f"{self.label} cannot be loaded ({_first_line(error)}): check name, config, split, data_files and "
                "revision, and the connection if it is on the hub"
            ) from error

    def _explained(self, batches: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        try:
            yield from batches
        except Exception as error:
            raise UserError(
                f"{self.label} cannot be read on ({_first_line(error)}): check its files, or the connection"
            ) from error

    def _refuse_missing(self, fields: Mapping[str, str], columns: Iterable[str]) -> None:
        names = list(columns)
        for field, setting in fields.items():
            if field not in names:
                raise UserError(f"{self.label} has no column {field!r}: set `{setting}` to {nearest(field, names)}")


def _first_line(error: BaseException) -> str:
    """What went wrong; the library wraps what a file's reader says."""
    cause = error.__cause__ or error
    lines = str(cause).strip().splitlines()
    return f"{type(cause).__name__}: {lines[0].rstrip('.')}" if lines else type(cause).__name__
