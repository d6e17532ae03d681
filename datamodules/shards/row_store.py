"""What can be asked of an activation store, wherever its rows lie."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from datamodules.shards.encodings import StoredColumns
from datamodules.shards.files import Place, in_words
from datamodules.shards.format import PROVENANCE_KEYS, Manifest
from datamodules.shards.mapping import damage

PROVENANCE = ""
"""Stands for the files that say where rows come from, where those of a hook point are named by it."""


class Provenance(NamedTuple):
    """Where rows come from; int32 [n] each."""

    tokens: Tensor
    """Token ids."""
    documents: Tensor
    """Document numbers: indices into `RowStore.document_names`."""
    positions: Tensor
    """Each token's index in its own document."""


class RowStore(ABC):
    """A store's rows, numbered 0 to `rows` - 1 across shards. Only one thread at a time may read from it.

    Args:
        place: of the store, for messages.
        manifest: that stands there.
    """

    document_names: list[str]
    """By document number."""

    def __init__(self, place: Place, manifest: Manifest) -> None:
        self.place = in_words(place)
        self.manifest = manifest
        self.hook_points = {name: hook_point.d for name, hook_point in manifest.hook_points.items()}
        self.rows = manifest.rows
        self.shard_rows = np.array([shard.rows for shard in manifest.shards])
        self._starts = np.cumsum([0, *self.shard_rows])
        # Rows as stored on their way to what is asked for, kept from read to read: the allocator would hand so large a
        # buffer back to the system and fetch it again, page by page, more slowly than the rows are read.
        self._buffers: dict[tuple[str, str], Tensor] = {}

    @abstractmethod
    def document_ranges(self) -> Tensor:
        """int64 [documents, 2]: first row of every document and the row after its last; equal when it has no rows."""

    @abstractmethod
    def _opened(
        self, sources: Sequence[str], rows: Tensor
    ) -> AbstractContextManager[tuple[Sequence[StoredColumns], Tensor]]:
        """Columns of hook points, or of `PROVENANCE`, and the places in them of rows, int64 [n], ascending."""

    def read(
        self, rows: Tensor, hook_points: Sequence[str] | None = None, dtype: torch.dtype | None = torch.float32
    ) -> tuple[Tensor, ...]:
        """Copies rows out of the store.

        Args:
            rows: int64 [n], row numbers, fastest when ascending.
            hook_points: which to read; all by default.
            dtype: of the result; None keeps the stored one, and gives float32 for int8.

        Returns:
            [n, d] per hook point, in the order asked for, row i of each being row `rows[i]` of the store.
        """
        names = list(self.hook_points) if hook_points is None else hook_points
        ascending, order = _ascending(rows)
        with self._opened(names, ascending) as (columns, places):
            read = [self._decoded(*named, places, dtype) for named in zip(names, columns, strict=True)]
        return tuple(_restore(values, order) for values in read)

    def provenance(self, rows: Tensor) -> Provenance:
        """Token, document and position of rows, int64 [n] in any order."""
        ascending, order = _ascending(rows)
        with self._opened([PROVENANCE], ascending) as ([columns], places):
            return Provenance(*(_restore(columns[key].gather(places), order) for key in PROVENANCE_KEYS))

    def describe(self, row: int) -> str:
        """A row's place in words, for messages."""
        shard = int(np.searchsorted(self._starts, row, side="right")) - 1
        source = self.provenance(torch.tensor([row]))
        return (
            f"row {row} of {self.place} (shard {shard}, row {row - self._starts[shard]}; "
            f"position {int(source.positions)} of document {self.document_names[int(source.documents)]})"
        )

    def _expected(self, source: str, shard: int) -> dict[str, tuple[torch.dtype, tuple[int, ...]]]:
        """dtype and shape of every tensor in a file of a shard."""
        rows = self.manifest.shards[shard].rows
        if source == PROVENANCE:
            return dict.fromkeys(PROVENANCE_KEYS, (torch.int32, (rows,)))
        hook_point = self.manifest.hook_points[source]
        columns = hook_point.encoding.columns(hook_point.d)
        return {key: (dtype, (rows, width)) for key, (dtype, width) in columns.items()}

    def _decoded(self, hook_point: str, columns: StoredColumns, places: Tensor, dtype: torch.dtype | None) -> Tensor:
        buffer = partial(self._buffer, hook_point, columns, len(places))
        return self.manifest.hook_points[hook_point].encoding.read(columns, places, dtype, buffer)

    def _buffer(self, hook_point: str, columns: StoredColumns, rows: int, key: str) -> Tensor:
        stored = columns[key]
        buffer = self._buffers.get((hook_point, key))
        if buffer is None or len(buffer) < rows:
            # An evaluation may come first; what it makes in inference mode could not be written to in training.
            with torch.inference_mode(False):
                buffer = self._buffers[hook_point, key] = torch.empty(rows, *stored.row_shape, dtype=stored.dtype)
        return buffer[:rows]


def ranges_of(counts: np.ndarray[Any, np.dtype[np.int64]]) -> Tensor:
    """int64 [documents, 2] row ranges of documents that have so many rows each."""
    stops = np.cumsum(counts)
    return torch.from_numpy(np.stack([stops - counts, stops], axis=1))


def parsed_names(content: bytes, place: object) -> list[str]:
    """The names of the documents from their file.

    Raises:
        UserError: it is damaged.
    """
    try:
        names: list[str] = json.loads(content)
    except ValueError as error:
        raise damage(place, f"not JSON: {error}") from error
    return names


def _ascending(rows: Tensor) -> tuple[Tensor, Tensor | None]:
    """The rows in ascending order, and how to undo that; None when there is nothing to undo."""
    numbers = rows.numpy()
    if (numbers[1:] >= numbers[:-1]).all():
        return rows, None
    return rows.sort()


def _restore(ascending: Tensor, order: Tensor | None) -> Tensor:
    """Undoes `_ascending`."""
    if order is None:
        return ascending
    restored = torch.empty_like(ascending)
    restored[order] = ascending
    return restored
