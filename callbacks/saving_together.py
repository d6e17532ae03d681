"""One checkpoint, written by several processes."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from torch import distributed

from lightning_modules.checkpoint_files import CheckpointParts
from run_store import UserError
from run_store.atomic import flush_to_disk, sha256_of
from run_store.checkpoints import demand_space, new_checkpoint

LEADER = 0


class SavingTogether:
    """Rank 0 makes the folder, each rank that holds rows of its own writes them there and hashes them, and rank 0 seals
    it. It fails as a whole: whatever goes wrong in one process is raised in all of them, and no folder is left.

    The ranks meet in a group of their own, on the CPU, so that a thread may save while training goes on. All of them
    must make one, and save, together; they must see the same folder.
    """

    def __init__(self) -> None:
        self._group = distributed.new_group(backend="gloo")
        self._leads = distributed.get_rank() == LEADER

    def save(self, parts: CheckpointParts, target: Path, metrics: Mapping[str, float]) -> None:
        """Saves to a folder `target`.

        Raises:
            UserError: it could not be made, by this process or by another.
        """
        if self._leads:
            self._lead(parts, target, metrics)
        else:
            self._follow(parts)

    def _lead(self, parts: CheckpointParts, target: Path, metrics: Mapping[str, float]) -> None:
        hashed: dict[str, str] = {}
        began = False
        try:
            demand_space(target, parts.bytes())
            with new_checkpoint(target, *parts.moment(), metrics, hashed=hashed) as folder:
                began = bool(self._told(str(folder)))
                hashed |= self._rows_written(parts, folder)
                parts.write(folder)
        except BaseException as error:
            if not began:
                self._told(None)
            self._told(str(error) or type(error).__name__)
            raise
        self._told(None)

    def _follow(self, parts: CheckpointParts) -> None:
        folder = self._told()
        if folder is not None:
            with suppress(UserError):  # rank 0 knows of it, and says it below
                self._rows_written(parts, Path(folder))
        if (failure := self._told()) is not None:
            raise UserError(failure)

    def _rows_written(self, parts: CheckpointParts, folder: Path) -> dict[str, str]:
        """The sha256 of every rank's files, by name; all of them must ask."""
        own: dict[str, str] | str
        try:
            own = self._write_rows(parts, folder)
        except Exception as error:  # the others wait to hear of it
            own = f"rank {distributed.get_rank()} could not save its latents ({error})"
        every: list[Any] = [None] * distributed.get_world_size()
        distributed.all_gather_object(every, own, group=self._group)
        for said in every:
            if isinstance(said, str):
                raise UserError(f"{said}: free some space on the disk of {folder.parent} or choose another folder")
        return {name: sha256 for said in every for name, sha256 in said.items()}

    @staticmethod
    def _write_rows(parts: CheckpointParts, folder: Path) -> dict[str, str]:
        # those who have other rows of the batch have the same latents again
        if parts.rows is None or distributed.get_rank() >= parts.rows.part.ranks:
            return {}
        hashed = {}
        for path in parts.rows.write(folder):
            flush_to_disk(path)
            hashed[path.name] = sha256_of(path)
        return hashed

    def _told(self, said: str | None = None) -> str | None:
        """What rank 0 says to all."""
        message = [said]
        distributed.broadcast_object_list(message, LEADER, group=self._group)
        return message[0]
