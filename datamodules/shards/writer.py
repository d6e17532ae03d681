"""Writing an activation store, one shard in memory at a time."""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from datamodules.shards.format import (
    ACTIVATIONS_KEY,
    DOCUMENTS_NAME,
    DTYPES,
    MANIFEST_NAME,
    PROVENANCE_KEYS,
    HookPoint,
    Manifest,
    Shard,
    StoredFile,
    activations_name,
    is_store,
    provenance_name,
    write_manifest,
)
from run_store import UserError, atomic_file, sha256_of, sweep_temporaries, write_json

SHARD_BYTES = 256 * 2**20

# What a killed writer leaves: whole files without a manifest and one half-written file.
_LEFTOVER = re.compile(
    rf"(shard-\d{{5,}}\..+\.safetensors|provenance-\d{{5,}}\.safetensors|{DOCUMENTS_NAME}|{MANIFEST_NAME})(\.\d+\.partial)?"
)


class StoreWriter:
    """Turns appended rows into a store, shard by shard; the store exists once `finish` has returned.

    Shards are cut by row count alone: the same rows give the same bytes however the appends were chopped. As a context
    manager it aborts when the block ends without `finish`.

    Args:
        folder: made when missing; may hold what a killed writer left, which is removed, and nothing else.
        hook_points: width d of every hook point.
        dtype: "float32", "bfloat16" or "float16"; what is appended is converted.
        shard_bytes: upper bound of one hook point's data in a shard.

    Raises:
        UserError: `folder` is already a store, holds other files, or another process is writing to it.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        hook_points: Mapping[str, int],
        dtype: str = "bfloat16",
        shard_bytes: int = SHARD_BYTES,
    ) -> None:
        self.folder = Path(folder)
        self.hook_points = {name: HookPoint(d, dtype) for name, d in hook_points.items()}
        widest_row = max(hook_points.values()) * DTYPES[dtype].itemsize
        self.rows_per_shard = max(1, shard_bytes // widest_row)
        self._lock = _claim(self.folder)
        self._shards: list[Shard] = []
        self._written: list[Path] = []
        self._last_document = 0
        self._filled = 0
        self._activations = {
            name: torch.empty(self.rows_per_shard, d, dtype=DTYPES[dtype]) for name, d in hook_points.items()
        }
        self._provenance = {key: torch.empty(self.rows_per_shard, dtype=torch.int32) for key in PROVENANCE_KEYS}

    @property
    def rows(self) -> int:
        """Rows appended so far."""
        return len(self._shards) * self.rows_per_shard + self._filled

    def append(self, activations: Mapping[str, Tensor], tokens: Tensor, documents: Tensor, positions: Tensor) -> None:
        """Adds n rows, aligned over the hook points.

        Args:
            activations: [n, d] per hook point, any float dtype and device.
            tokens: integers [n], token ids.
            documents: integers [n], document numbers, which never fall.
            positions: integers [n], each token's index in its document.

        Raises:
            UserError: a value is NaN or infinite, or the disk is full.
        """
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
                self._activations[name][target] = rows[start:stop]
                self._check_finite(name, target)
            self._filled = target.stop
            if self._filled == self.rows_per_shard:
                self._write_shard()
            start = stop

    def finish(self, source: Mapping[str, Any], documents: Sequence[str]) -> Manifest:
        """Writes the last shard, the document names and the manifest.

        Args:
            source: plain JSON that says what the rows are; kept in the manifest.
            documents: the name of every document number.

        Raises:
            UserError: nothing was appended, or the disk is full.
        """
        if not self.rows:
            raise UserError(f"no activations to store in {self.folder}: the text gave no rows after filtering")
        if self._last_document >= len(documents):
            raise ValueError(f"document number {self._last_document} has no name among {len(documents)}")
        if self._filled:
            self._write_shard()
        names = self.folder / DOCUMENTS_NAME
        self._written.append(names)
        write_json(names, list(documents))
        manifest = Manifest(dict(source), self.hook_points, tuple(self._shards), _stored(names))
        write_manifest(self.folder, manifest)
        self._written.clear()
        self._release()
        return manifest

    def abort(self) -> None:
        """Removes what was written. Does nothing after `finish`."""
        for path in self._written:
            path.unlink(missing_ok=True)
        self._written.clear()
        self._release()

    def __enter__(self) -> StoreWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.abort()

    def _check_shapes(self, tensors: Mapping[str, Tensor], count: int) -> None:
        # Assignment to a slice would broadcast a row or a column silently.
        expected = {name: (count, hook_point.d) for name, hook_point in self.hook_points.items()}
        shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        if shapes != expected | dict.fromkeys(PROVENANCE_KEYS, (count,)):
            raise ValueError(f"rows of shapes {shapes} do not fit a store of {expected}")

    def _check_documents(self, documents: Tensor) -> None:
        if len(documents):
            if documents[0] < self._last_document or bool((documents[1:] < documents[:-1]).any()):
                raise ValueError("document numbers must not fall: a document's rows stand together in the store")
            self._last_document = int(documents[-1])

    def _check_finite(self, hook_point: str, target: slice) -> None:
        """Looks at the rows as stored: float16 turns large finite values into infinities."""
        rows = self._activations[hook_point][target]
        # One sum is far cheaper than a mask; finite rows may overflow it, hence the second look.
        if torch.isfinite(rows.sum(dtype=torch.float32)):
            return
        bad = (~torch.isfinite(rows)).any(dim=1).nonzero()
        if len(bad):
            row = target.start + int(bad[0])
            document, position = (int(self._provenance[key][row]) for key in ("documents", "positions"))
            raise UserError(
                f"the activations of hook point {hook_point} at position {position} of document number {document} are "
                f"NaN or infinite as {rows.dtype}: check the model's weights or choose a wider dtype"
            )

    def _write_shard(self) -> None:
        number, rows = len(self._shards), slice(0, self._filled)
        activations = {
            name: self._write_file(activations_name(number, name), {ACTIVATIONS_KEY: buffer[rows]})
            for name, buffer in self._activations.items()
        }
        provenance = {key: buffer[rows] for key, buffer in self._provenance.items()}
        self._shards.append(Shard(self._filled, activations, self._write_file(provenance_name(number), provenance)))
        self._filled = 0

    def _write_file(self, name: str, tensors: dict[str, Tensor]) -> StoredFile:
        path = self.folder / name
        self._written.append(path)
        with atomic_file(path) as temporary:
            save_file(tensors, temporary)
        return _stored(path)

    def _release(self) -> None:
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def _claim(folder: Path) -> int:
    """Locks `folder` for one writer and clears what a killed one left there; returns the lock, a file descriptor."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the folder {folder} for the store: {error.strerror}") from error
    lock = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if is_store(folder):
            raise UserError(f"{folder} already holds an activation store: delete it or choose another folder")
        _sweep(folder)
    except BaseException as error:
        os.close(lock)
        if isinstance(error, BlockingIOError):
            raise UserError(f"another process is writing the store {folder}: wait for it to end") from None
        raise
    return lock


def _sweep(folder: Path) -> None:
    entries = [entry for entry in folder.iterdir() if not entry.name.startswith(".")]
    # Everything is looked at before anything is removed: a mistyped path must not cost a person their files.
    for entry in entries:
        if not (entry.is_file() and _LEFTOVER.fullmatch(entry.name)):
            raise UserError(f"{folder} is no activation store but holds {entry.name}: choose an empty folder")
    for entry in entries:
        entry.unlink()
    sweep_temporaries(folder)


def _stored(path: Path) -> StoredFile:
    return StoredFile(path.name, path.stat().st_size, sha256_of(path))
