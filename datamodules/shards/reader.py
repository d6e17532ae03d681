"""Reading an activation store from a disk: memory-mapped, so that a store larger than memory costs none of it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import numpy as np
from torch import Tensor

from datamodules.shards.encodings import StoredColumns
from datamodules.shards.format import StoredFile, read_manifest
from datamodules.shards.mapped_rows import MappedRows
from datamodules.shards.mapping import damage, map_tensors
from datamodules.shards.row_store import PROVENANCE, RowStore, parsed_names, ranges_of
from run_store import UserError, sha256_of


class ActivationStore(RowStore):
    """A store in a folder, all of it mapped.

    Args:
        folder: of the store.
        verify: compare every file's sha256 with the manifest's; presence and size are always checked.

    Raises:
        UserError: there is no store, or one of its files is missing, cut short or changed.
    """

    def __init__(self, folder: str | os.PathLike[str], verify: bool = True) -> None:
        self.folder = Path(folder)
        super().__init__(folder, read_manifest(folder))
        self._check_files(verify)
        names = self._path(self.manifest.documents)
        self.document_names = parsed_names(names.read_bytes(), names)
        self._columns = {source: self._map(source) for source in (*self.hook_points, PROVENANCE)}

    def document_ranges(self) -> Tensor:
        counts = np.zeros(len(self.document_names), dtype=np.int64)
        for documents in self._columns[PROVENANCE]["documents"].parts:
            counts += np.bincount(documents.numpy(), minlength=len(counts))
        return ranges_of(counts)

    def _opened(
        self, sources: Sequence[str], rows: Tensor
    ) -> AbstractContextManager[tuple[Sequence[StoredColumns], Tensor]]:
        return nullcontext(([self._columns[source] for source in sources], rows))

    def _path(self, file: StoredFile) -> Path:
        return self.folder / file.name

    def _check_files(self, verify: bool) -> None:
        for file in self.manifest.files:
            path = self._path(file)
            if not path.is_file():
                raise UserError(f"{path} is missing: put it back or extract the store again")
            if (size := path.stat().st_size) != file.bytes:
                raise damage(path, f"{size} bytes instead of {file.bytes}")
        if verify:
            with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
                list(pool.map(self._check_hash, self.manifest.files))

    def _check_hash(self, file: StoredFile) -> None:
        if sha256_of(self._path(file)) != file.sha256:
            raise damage(self._path(file), "its sha256 is not the one that was written")

    def _map(self, source: str) -> dict[str, MappedRows]:
        parts = [
            map_tensors(self._path(shard.file(source)), self._expected(source, number))
            for number, shard in enumerate(self.manifest.shards)
        ]
        return {key: MappedRows([part[key] for part in parts]) for key in parts[0]}
