"""Writing an activation store in one go."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from torch import Tensor

from datamodules.shards.claim import Claim
from datamodules.shards.files import Place, in_words
from datamodules.shards.format import DOCUMENTS_NAME, HookPoint, Manifest, is_store, write_manifest
from datamodules.shards.shard_writer import SHARD_BYTES, ShardWriter, stored_file
from run_store import UserError, write_json


class StoreWriter:
    """Turns appended rows into a store, shard by shard; the store exists once `finish` has returned.

    Shards are cut by row count alone: the same rows give the same bytes however the appends were chopped. As a context
    manager it aborts when the block ends without `finish`.

    Args:
        folder: made when missing; may hold what a killed writer left, which is removed, and nothing else.
        hook_points: width d of every hook point.
        dtype: "float32", "bfloat16", "float16" or "int8" (with a scale a block, see `encodings`); what is appended is
            converted.
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
        self._claim = Claim(self.folder)
        try:
            refuse_finished(self.folder)
            self._claim.sweep()
        except BaseException:
            self._claim.release()
            raise
        self._writer = ShardWriter(self.folder, self.hook_points, shard_bytes)

    @property
    def rows(self) -> int:
        """Rows appended so far."""
        return self._writer.rows

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
        self._writer.append(activations, tokens, documents, positions)

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
        if self._writer.last_document >= len(documents):
            raise ValueError(f"document number {self._writer.last_document} has no name among {len(documents)}")
        self._writer.flush()
        names = self.folder / DOCUMENTS_NAME
        write_json(names, list(documents))
        manifest = Manifest(dict(source), self.hook_points, tuple(self._writer.shards), stored_file(names))
        write_manifest(self.folder, manifest)
        self._claim.release()
        return manifest

    def abort(self) -> None:
        """Removes what was written. Does nothing after `finish`."""
        if self._claim.held:
            for name in [DOCUMENTS_NAME, *(file.name for shard in self._writer.shards for file in shard.files)]:
                (self.folder / name).unlink(missing_ok=True)
            self._writer.remove_unfinished()
            self._claim.release()

    def __enter__(self) -> StoreWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.abort()


def refuse_finished(place: Place) -> None:
    """Raises a UserError where there is a store already."""
    if is_store(place):
        raise UserError(f"{in_words(place)} already holds an activation store: delete it or choose another folder")
