"""Documents from a dataset of the Hugging Face hub, or of files that its library reads."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from datamodules.text.bad_rows import BadRowAction, BadRows, text_fault
from datamodules.text.corpus import Corpus, Document
from run_store import UserError, nearest

ROWS_A_BATCH = 256


class HuggingFaceDataset(Corpus):
    """The rows of a dataset, in its own order, named `name/0`, `name/1`… (for a local folder: by the folder's name).

    Needs the library `datasets` (4 or later, which runs no code of a dataset). Streamed or not, the documents are the
    same: streaming downloads what is read as it is read, and not streaming keeps a copy in the library's cache
    ($HF_HOME).

    Args:
        name: A dataset of the hub, a local folder, or a builder such as `json`, `parquet` or `text` with `data_files`.
        split: As the dataset calls it; when not streaming also a slice like `train[:10%]`, whose rows count from 0.
        field: The column that holds the text.
        config: Which of the dataset's configurations, for instance a language.
        data_files: Paths, patterns or addresses of the files to read.
        revision: Branch, tag or commit on the hub; only a commit always names the same content.
        streaming: Read without downloading everything first.
        bad_rows: `refuse` stops at the first row whose column holds no text and names it; `skip` leaves such rows out
            and tells their number at the end.
    """

    def __init__(
        self,
        name: str,
        split: str = "train",
        field: str = "text",
        config: str | None = None,
        data_files: str | Sequence[str] | None = None,
        revision: str | None = None,
        streaming: bool = False,
        bad_rows: BadRowAction = "refuse",
    ) -> None:
        self.name = name
        self.split = split
        self.field = field
        self.config = config
        self.data_files = data_files if data_files is None or isinstance(data_files, str) else list(data_files)
        self.revision = revision
        self.streaming = streaming
        self.bad_rows: BadRowAction = bad_rows

    def documents(self) -> Iterator[Document]:
        """Yields the rows that are not blank.

        Raises:
            UserError: the library is missing, the dataset cannot be loaded, a row holds no text, or all are blank.
        """
        folder = Path(self.name).expanduser()
        prefix = folder.resolve().name if folder.is_dir() else self.name
        bad, rows, found = BadRows(self.bad_rows), 0, False
        try:
            for rows, text in enumerate(self._texts(), start=1):
                name = f"{prefix}/{rows - 1}"
                fault = text_fault(text, self.field)
                if fault is not None:
                    bad.met(name, fault)
                elif text.strip():
                    found = True
                    yield Document(name, text)
        finally:
            bad.tell()
        if not found:
            raise UserError(f"the split {self.split!r} of {self._label} ({rows} rows) holds no text: choose another")

    def describe(self) -> dict[str, Any]:
        """The settings; `streaming` decides nothing but where the rows lie."""
        return {
            "class": type(self).__name__,
            "name": self.name,
            "split": self.split,
            "field": self.field,
            "config": self.config,
            "data_files": self.data_files,
            "revision": self.revision,
            "bad_rows": self.bad_rows,
        }

    @property
    def _label(self) -> str:
        return f"the dataset {self.name!r}" if self.config is None else f"the dataset {self.name!r} ({self.config})"

    def _texts(self) -> Iterator[Any]:
        """What the column holds, row by row."""
        dataset = self._load()
        if dataset.column_names is not None:  # a stream may not know its columns before its first row
            self._refuse_missing(dataset.column_names)
            dataset = dataset.select_columns([self.field])
        for batch in self._explained(dataset.iter(ROWS_A_BATCH)):
            self._refuse_missing(batch)
            yield from batch[self.field]

    def _load(self) -> Any:
        try:
            import datasets
        except ImportError as error:
            raise UserError(
                f"{self._label} needs the library datasets: run pip install 'datasets>=4', or use TextFiles"
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
                f"{self._label} cannot be loaded ({_first_line(error)}): check name, config, split, data_files and "
                "revision, and the connection if it is on the hub"
            ) from error

    def _explained(self, batches: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        try:
            yield from batches
        except Exception as error:
            raise UserError(
                f"{self._label} cannot be read on ({_first_line(error)}): check its files, or the connection"
            ) from error

    def _refuse_missing(self, columns: Iterable[str]) -> None:
        names = list(columns)
        if self.field not in names:
            raise UserError(f"{self._label} has no column {self.field!r}: set `field` to {nearest(self.field, names)}")


def _first_line(error: BaseException) -> str:
    """What went wrong; the library wraps what a file's reader says."""
    cause = error.__cause__ or error
    lines = str(cause).strip().splitlines()
    return f"{type(cause).__name__}: {lines[0].rstrip('.')}" if lines else type(cause).__name__
