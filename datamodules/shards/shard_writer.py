"""Rows into shards, one in memory at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from datamodules.shards.format import (
    PROVENANCE_KEYS,
    HookPoint,
    Shard,
    StoredFile,
    activations_name,
    provenance_name,
)
from run_store import UserError, atomic_file, sha256_of

SHARD_BYTES = 256 * 2**20


class ShardWriter:
    """Cuts appended rows into shards by row count alone: the same rows give the same bytes however they are chopped.

    Args:
        folder: where to; its owner sees to it that nobody else writes there.
        hook_points: what is stored of each.
        shard_bytes: upper bound of one hook point's data in a shard.
        part: of the files' names, where several processes write one store; see `activations_name`.
        shards: those that were written before, which these rows follow.
        on_shard: called when a shard is on disk.
    """

    def __init__(
        self,
        folder: Path,
        hook_points: Mapping[str, HookPoint],
        shard_bytes: int = SHARD_BYTES,
        part: str = "",
        shards: Sequence[Shard] = (),
        on_shard: Callable[[Shard], None] | None = None,
    ) -> None:
        self.folder = folder
        self.hook_points = dict(hook_points)
        self.shards = list(shards)
        self.rows_per_shard = max(1, shard_bytes // max(point.row_bytes for point in hook_points.values()))
        self.last_document = 0
        self._part = part
        self._on_shard = on_shard
        self._unfinished: list[Path] = []  # files of the shard that is being written
        self._filled = 0
        self._columns = {
            name: {
                key: torch.empty(self.rows_per_shard, width, dtype=dtype)
                for key, (dtype, width) in point.encoding.columns(point.d).items()
            }
            for name, point in hook_points.items()
        }
        self._provenance = {key: torch.empty(self.rows_per_shard, dtype=torch.int32) for key in PROVENANCE_KEYS}

    @property
    def rows_on_disk(self) -> int:
        """Rows in shards."""
        return sum(shard.rows for shard in self.shards)

    @property
    def rows(self) -> int:
        """Rows in shards and on their way."""
        return self.rows_on_disk + self._filled

    def append(self, activations: Mapping[str, Tensor], tokens: Tensor, documents: Tensor, positions: Tensor) -> None:
        """Adds n rows, aligned over the hook points; see `StoreWriter.append`."""
        provenance = dict(zip(PROVENANCE_KEYS, (tokens, documents, positions), strict=True))
        self._check_shapes({**activations, **provenance}, len(tokens))
        self._check_documents(documents)
        start, count = 0, len(tokens)
        while start < count:
            stop = min(count, start + self.rows_per_shard - self._filled)
            target = slice(self._filled, self._filled + stop - start)
            for key, values in provenance.items():
                self._provenance[key][target] = values[start:stop]
            for name, rows in activations.items():
                columns = {key: column[target] for key, column in self._columns[name].items()}
                encoded = self.hook_points[name].encoding.encode(rows[start:stop], columns)
                self._check_finite(name, encoded, target.start)
            self._filled = target.stop
            if self._filled == self.rows_per_shard:
                self.flush()
            start = stop

    def flush(self) -> None:
        """Writes what is left as a shard; nothing when nothing is left."""
        if not self._filled:
            return
        number, rows = len(self.shards), slice(0, self._filled)
        activations = {
            name: self._write_file(
                activations_name(number, name, self._part), {key: column[rows] for key, column in columns.items()}
            )
            for name, columns in self._columns.items()
        }
        provenance = {key: buffer[rows] for key, buffer in self._provenance.items()}
        file = self._write_file(provenance_name(number, self._part), provenance)
        self.shards.append(Shard(self._filled, activations, file))
        self._filled = 0
        if self._on_shard is not None:
            self._on_shard(self.shards[-1])
        self._unfinished.clear()

    def remove_unfinished(self) -> None:
        """Removes the files of a shard whose writing failed."""
        for path in self._unfinished:
            path.unlink(missing_ok=True)
        self._unfinished.clear()

    def _check_shapes(self, tensors: Mapping[str, Tensor], count: int) -> None:
        # Assignment to a slice would broadcast a row or a column silently.
        expected = {name: (count, hook_point.d) for name, hook_point in self.hook_points.items()}
        shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        if shapes != expected | dict.fromkeys(PROVENANCE_KEYS, (count,)):
            raise ValueError(f"rows of shapes {shapes} do not fit a store of {expected}")

    def _check_documents(self, documents: Tensor) -> None:
        if len(documents):
            if documents[0] < self.last_document or bool((documents[1:] < documents[:-1]).any()):
                raise ValueError("document numbers must not fall: a document's rows stand together in the store")
            self.last_document = int(documents[-1])

    def _check_finite(self, hook_point: str, rows: Tensor, start: int) -> None:
        """Looks at the rows that fill the shard from `start` on."""
        # One sum is far cheaper than a mask; finite rows may overflow it, hence the second look.
        if torch.isfinite(rows.sum(dtype=torch.float32)):
            return
        bad = (~torch.isfinite(rows)).any(dim=1).nonzero()
        if len(bad):
            row = start + int(bad[0])
            document, position = (int(self._provenance[key][row]) for key in ("documents", "positions"))
            raise UserError(
                f"the activations of hook point {hook_point} at position {position} of document number {document} are "
                f"NaN or infinite as {rows.dtype}: check the model's weights or choose a wider dtype"
            )

    def _write_file(self, name: str, tensors: dict[str, Tensor]) -> StoredFile:
        path = self.folder / name
        self._unfinished.append(path)
        with atomic_file(path) as temporary:
            save_file(tensors, temporary)
        return stored_file(path)


def stored_file(path: Path) -> StoredFile:
    """What the manifest says of a file."""
    return StoredFile(path.name, path.stat().st_size, sha256_of(path))
