"""Triplets from a dataset of the Hugging Face hub, or of files that its library reads."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from datamodules.text.bad_rows import BadRowAction, BadRows
from datamodules.text.dataset_rows import DatasetRows
from datamodules.triplets.columns import USUAL_COLUMNS, BadFieldError, TripletColumns
from datamodules.triplets.source import Example, TripletSource


class TripletDataset(TripletSource):
    """The rows of a dataset, in its own order. Needs the library `datasets` (4 or later, which runs no code of one).

    Args:
        name: A dataset of the hub, a local folder, or a builder such as `json`, `csv` or `parquet` with `data_files`.
        split: As the dataset calls it; when not streaming also a slice like `train[:10%]`.
        columns: Which columns hold what.
        config: Which of the dataset's configurations, for instance `triplet` or `pair`.
        data_files: Paths, patterns or addresses of the files to read.
        revision: Branch, tag or commit on the hub; only a commit always names the same content.
        streaming: Read without downloading everything first.
        bad_rows: `refuse` stops at the first bad row and names it; `skip` leaves such rows out and tells their number.
    """

    def __init__(
        self,
        name: str,
        split: str = "train",
        columns: TripletColumns = USUAL_COLUMNS,
        config: str | None = None,
        data_files: str | Sequence[str] | None = None,
        revision: str | None = None,
        streaming: bool = False,
        bad_rows: BadRowAction = "refuse",
    ) -> None:
        self.name = name
        self.split = split
        self.columns = columns
        self.config = config
        self.data_files = data_files if data_files is None or isinstance(data_files, str) else list(data_files)
        self.revision = revision
        self.streaming = streaming
        self.bad_rows: BadRowAction = bad_rows

    def read(self, bad: BadRows) -> Iterator[Example]:
        """Yields the rows, which messages call `name/0`, `name/1`…

        Raises:
            UserError: the library is missing, the dataset cannot be loaded or lacks a column, or a row is bad and those
                are refused.
        """
        dataset = self._dataset()
        for number, values in enumerate(dataset.read(self.columns.settings())):
            place = f"{dataset.short_name}/{number}"
            try:
                yield self.columns.example(values, place)
            except BadFieldError as error:
                bad.met(place, str(error))

    def describe(self) -> dict[str, Any]:
        """The settings; `streaming` decides nothing but where the rows lie."""
        return {
            "class": type(self).__name__,
            "name": self.name,
            "split": self.split,
            "columns": asdict(self.columns),
            "config": self.config,
            "data_files": self.data_files,
            "revision": self.revision,
            "bad_rows": self.bad_rows,
        }

    def fingerprint(self) -> str:
        """Of what the columns hold, since neither a name nor a branch says that.

        Raises:
            UserError: as `read`.
        """
        digest = hashlib.sha256()
        for values in self._dataset().read(self.columns.settings()):
            digest.update(json.dumps(values, default=repr).encode() + b"\n")
        return digest.hexdigest()

    def _dataset(self) -> DatasetRows:
        return DatasetRows(self.name, self.split, self.config, self.data_files, self.revision, self.streaming)
