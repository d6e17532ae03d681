"""How Lightning's checkpoints reach the disk."""

from __future__ import annotations

import os
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lightning.fabric.plugins.io.checkpoint_io import CheckpointIO

from callbacks.saving_together import SavingTogether
from lightning_modules.checkpoint_files import CheckpointParts, MapLocation, load_plain, read_checkpoint
from lightning_modules.sharded_files import EVERY_ROW
from run_store.checkpoints import demand_space, new_checkpoint, remove_checkpoint


@dataclass(frozen=True)
class SaveOptions:
    """What a save is told beside the state.

    Args:
        metrics: measured on these weights, for the manifest.
        asynchronous: whether training goes on while the files are written.
    """

    metrics: Mapping[str, float] = field(default_factory=dict)
    asynchronous: bool = False


class AtomicCheckpointIO(CheckpointIO):
    """Writes a checkpoint as a folder that appears whole or not at all, and looks at every hash before it is used.

    Lightning's own writer goes through $TMPDIR and does not flush: a kill there, or a power cut, leaves a truncated
    file under the final name.

    An asynchronous save copies the state on the training thread, into memory that it keeps, and leaves hashing, writing
    and flushing to a thread of its own. One save is under way at a time: the next one waits for it, and so do a load
    and the end of the process. What went wrong in it is raised by whatever waits for it.

    A checkpoint with tensors that are cut by latents is saved by all processes together (`SavingTogether`): each calls
    `save_checkpoint`.
    """

    def __init__(self) -> None:
        self.part = EVERY_ROW
        """Whose rows of such tensors a load reads; what ranks that share latents have is set by their strategy."""
        self._together: SavingTogether | None = None
        self.newest: Path | None = None
        """The last checkpoint that this process has written: its hashes were made from what is on the disk."""
        self._writer: ThreadPoolExecutor | None = None
        self._under_way: Future[None] | None = None
        self._target: Path | None = None
        self._snapshot: CheckpointParts | None = None

    @property
    def writing(self) -> Path | None:
        """Where the save goes that is under way."""
        return self._target if self._under_way is not None and not self._under_way.done() else None

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: SaveOptions | None = None
    ) -> None:
        """Saves to a local folder `path`.

        Raises:
            UserError: the disk has too little room or cannot be written to, now or in the asynchronous save before;
                what was there before is untouched.
        """
        self.drain()
        options = storage_options or SaveOptions()
        parts, target = CheckpointParts.of(checkpoint), Path(path)
        if parts.rows is None:
            demand_space(target, parts.bytes())
        elif self._together is None:
            self._together = SavingTogether()
        if not options.asynchronous:
            self._write(parts, target, options.metrics)
            return
        if self._writer is None:
            # not a daemon: Python waits for it before the process ends
            self._writer = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._target = target
        self._snapshot = parts.snapshot(self._snapshot)
        self._under_way = self._writer.submit(self._write, self._snapshot, target, dict(options.metrics))

    def _write(self, parts: CheckpointParts, target: Path, metrics: Mapping[str, float]) -> None:
        if parts.rows is None:
            step, epoch = parts.moment()
            with new_checkpoint(target, step, epoch, metrics) as folder:
                parts.write(folder)
        else:
            assert self._together is not None  # save_checkpoint has seen to it
            self._together.save(parts, target, metrics)
        self.newest = target

    def drain(self) -> None:
        """Waits for the save that is under way.

        Raises:
            UserError: it could not be made.
        """
        if self._under_way is None:
            return
        try:
            self._under_way.result()
        finally:
            # a Ctrl-C while waiting leaves it under way
            if self._under_way.done():
                self._under_way = None

    def load_checkpoint(
        self,
        path: str | os.PathLike[str],
        map_location: MapLocation = lambda storage, location: storage,
        weights_only: bool | None = None,
    ) -> dict[str, Any]:
        """Loads a checkpoint folder, or a single file of plain values as Lightning writes it.

        Raises:
            UserError: it is missing, damaged, or holds more than tensors and plain values.
        """
        self.drain()
        return (
            load_plain(path, map_location) if os.path.isfile(path) else read_checkpoint(path, map_location, self.part)
        )

    def remove_checkpoint(self, path: str | os.PathLike[str]) -> None:
        """Removes a checkpoint as a whole."""
        self.drain()
        if os.path.isfile(path):
            os.unlink(path)
        else:
            remove_checkpoint(path)

    def teardown(self) -> None:
        """Waits for the save that is under way.

        Raises:
            UserError: it could not be made.
        """
        try:
            self.drain()
        finally:
            if self._writer is not None:
                self._writer.shutdown()
            self._writer = self._snapshot = self._together = None
