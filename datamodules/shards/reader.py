"""Reading an activation store: memory-mapped, so that a store larger than memory costs none of it."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from datamodules.shards.format import (
    PROVENANCE_KEYS,
    Shard,
    StoredFile,
    read_manifest,
)
from datamodules.shards.mapped_rows import MappedRows
from run_store import UserError, sha256_of

# numpy has no bfloat16, so everything is mapped as integers of its width and viewed.
_CARRIERS = {1: np.int8, 2: np.int16, 4: np.int32}
_SAFETENSORS_NAMES = {
    torch.float32: "F32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.int32: "I32",
    torch.int8: "I8",
}


class Provenance(NamedTuple):
    """Where rows come from; int32 [n] each."""

    tokens: Tensor
    """Token ids."""
    documents: Tensor
    """Document numbers: indices into `ActivationStore.document_names`."""
    positions: Tensor
    """Each token's index in its own document."""


class ActivationStore:
    """A store on disk, its rows numbered 0 to `rows` - 1 across shards. Only one thread at a time may read from it.

    Args:
        folder: of the store.
        verify: compare every file's sha256 with the manifest's; presence and size are always checked.

    Raises:
        UserError: there is no store, or one of its files is missing, cut short or changed.
    """

    def __init__(self, folder: str | os.PathLike[str], verify: bool = True) -> None:
        self.folder = Path(folder)
        self.manifest = read_manifest(folder)
        self.hook_points = {name: hook_point.d for name, hook_point in self.manifest.hook_points.items()}
        self.rows = self.manifest.rows
        self._check_files(verify)
        self.document_names = self._read_document_names()
        self._starts = np.cumsum([0, *(shard.rows for shard in self.manifest.shards)])
        self._activations = {name: self._map_hook_point(name) for name in self.hook_points}
        # Rows as stored on their way to what is asked for, kept from read to read: the allocator would hand so large a
        # buffer back to the system and fetch it again, page by page, more slowly than the rows are read.
        self._buffers: dict[tuple[str, str], Tensor] = {}
        provenance = [self._map_provenance(shard) for shard in self.manifest.shards]
        self._provenance = {key: MappedRows([columns[key] for columns in provenance]) for key in PROVENANCE_KEYS}

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
        return tuple(_restore(self._read_ascending(name, ascending, dtype), order) for name in names)

    def provenance(self, rows: Tensor) -> Provenance:
        """Token, document and position of rows, int64 [n] in any order."""
        ascending, order = _ascending(rows)
        return Provenance(*(_restore(column.gather(ascending), order) for column in self._provenance.values()))

    def document_ranges(self) -> Tensor:
        """int64 [documents, 2]: first row of every document and the row after its last; equal when it has no rows."""
        counts = np.zeros(len(self.document_names), dtype=np.int64)
        for documents in self._provenance["documents"].parts:
            counts += np.bincount(documents.numpy(), minlength=len(counts))
        stops = np.cumsum(counts)
        return torch.from_numpy(np.stack([stops - counts, stops], axis=1))

    def describe(self, row: int) -> str:
        """A row's place in words, for messages."""
        shard = int(np.searchsorted(self._starts, row, side="right")) - 1
        source = self.provenance(torch.tensor([row]))
        return (
            f"row {row} of {self.folder} (shard {shard}, row {row - self._starts[shard]}; "
            f"position {int(source.positions)} of document {self.document_names[int(source.documents)]})"
        )

    def _path(self, file: StoredFile) -> Path:
        return self.folder / file.name

    def _read_document_names(self) -> list[str]:
        path = self._path(self.manifest.documents)
        try:
            names: list[str] = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise _damage(path, f"not JSON: {error}") from error
        return names

    def _check_files(self, verify: bool) -> None:
        for file in self.manifest.files:
            path = self._path(file)
            if not path.is_file():
                raise UserError(f"{path} is missing: put it back or extract the store again")
            if (size := path.stat().st_size) != file.bytes:
                raise _damage(path, f"{size} bytes instead of {file.bytes}")
        if verify:
            with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
                list(pool.map(self._check_hash, self.manifest.files))

    def _check_hash(self, file: StoredFile) -> None:
        if sha256_of(self._path(file)) != file.sha256:
            raise _damage(self._path(file), "its sha256 is not the one that was written")

    def _map_hook_point(self, name: str) -> dict[str, MappedRows]:
        hook_point = self.manifest.hook_points[name]
        columns = hook_point.encoding.columns(hook_point.d)
        shards = [
            _map(
                self._path(shard.activations[name]),
                {key: (dtype, (shard.rows, width)) for key, (dtype, width) in columns.items()},
            )
            for shard in self.manifest.shards
        ]
        return {key: MappedRows([shard[key] for shard in shards]) for key in columns}

    def _map_provenance(self, shard: Shard) -> dict[str, Tensor]:
        return _map(self._path(shard.provenance), dict.fromkeys(PROVENANCE_KEYS, (torch.int32, (shard.rows,))))

    def _read_ascending(self, hook_point: str, ascending: Tensor, dtype: torch.dtype | None) -> Tensor:
        encoding = self.manifest.hook_points[hook_point].encoding
        buffer = partial(self._buffer, hook_point, len(ascending))
        return encoding.read(self._activations[hook_point], ascending, dtype, buffer)

    def _buffer(self, hook_point: str, rows: int, key: str) -> Tensor:
        stored = self._activations[hook_point][key]
        buffer = self._buffers.get((hook_point, key))
        if buffer is None or len(buffer) < rows:
            # An evaluation may come first; what it makes in inference mode could not be written to in training.
            with torch.inference_mode(False):
                buffer = self._buffers[hook_point, key] = torch.empty(rows, *stored.row_shape, dtype=stored.dtype)
        return buffer[:rows]


def _damage(path: Path, problem: str) -> UserError:
    return UserError(f"{path} is damaged ({problem}): put the original back or extract the store again")


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


def _map(path: Path, expected: Mapping[str, tuple[torch.dtype, tuple[int, ...]]]) -> dict[str, Tensor]:
    """Maps a safetensors file read-only, without safetensors, which can only slice it or load it.

    Raises:
        UserError: the file does not hold exactly tensors of the expected dtypes and shapes.
    """
    with open(path, "rb") as file:
        header_bytes = int.from_bytes(file.read(8), "little")
        header = file.read(min(header_bytes, path.stat().st_size))
    try:
        entries = json.loads(header)
        return {
            name: _map_tensor(path, entries[name], 8 + header_bytes, dtype, shape)
            for name, (dtype, shape) in expected.items()
        }
    except (ValueError, KeyError, TypeError) as error:
        raise _damage(path, str(error)) from error


def _map_tensor(path: Path, entry: dict[str, Any], data: int, dtype: torch.dtype, shape: tuple[int, ...]) -> Tensor:
    found, expected = (entry["dtype"], entry["shape"]), (_SAFETENSORS_NAMES[dtype], list(shape))
    if found != expected:
        raise ValueError(f"it holds {found} where {expected} should be")
    offset = data + entry["data_offsets"][0]
    mapped = np.memmap(path, dtype=_CARRIERS[dtype.itemsize], mode="r", offset=offset, shape=shape)
    with warnings.catch_warnings():
        # A write to a read-only map would crash the process; nothing here writes, and no map is handed out.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(mapped).view(dtype)
