"""Documents from a dataset of the Hugging Face hub, or of files that its library reads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from datamodules.text.bad_rows import BadRowAction, BadRows, text_fault
from datamodules.text.corpus import Corpus, Document
from datamodules.text.dataset_rows import DatasetRows
from run_store import UserError


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
        dataset = DatasetRows(self.name, self.split, self.config, self.data_files, self.revision, self.streaming)
        bad, rows, found = BadRows(self.bad_rows), 0, False
        try:
            for rows, (text,) in enumerate(dataset.read({self.field: "field"}), start=1):
                name = f"{dataset.short_name}/{rows - 1}"
                fault = text_fault(text, self.field)
                if fault is not None:
                    bad.met(name, fault)
                elif text.strip():
                    found = True
                    yield Document(name, text)
        finally:
            bad.tell()
        if not found:
            raise UserError(f"the split {self.split!r} of {dataset.label} ({rows} rows) holds no text: choose another")

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
