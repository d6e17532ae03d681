"""One writer a folder."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Collection
from pathlib import Path

from datamodules.shards.format import WRITTEN
from run_store import UserError, sweep_temporaries


class Claim:
    """Keeps other writers out of a folder until it is released, or the process ends.

    Args:
        folder: made when missing.

    Raises:
        UserError: the folder cannot be made, or another process is writing there.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot make the folder {folder} for the store: {error.strerror}") from error
        self._lock = os.open(folder, os.O_RDONLY)
        self._take(fcntl.LOCK_EX)

    @classmethod
    def shared(cls, folder: Path) -> Claim:
        """A part in a claim that was opened by `share`, perhaps in another process."""
        claim = cls.__new__(cls)
        claim.folder = folder
        claim._lock = os.open(folder, os.O_RDONLY)
        claim._take(fcntl.LOCK_SH)
        return claim

    @property
    def held(self) -> bool:
        """Whether it was not released yet."""
        return self._lock >= 0

    def share(self) -> None:
        """Lets in those who ask for a part, and keeps others out until the last of them is done."""
        self._take(fcntl.LOCK_SH)

    def sweep(self, keep: Collection[str] = ()) -> None:
        """Removes what a killed writer left.

        Args:
            keep: names of files that stay.

        Raises:
            UserError: there are other files; then nothing is removed.
        """
        names = [entry.name for entry in self.folder.iterdir() if not entry.name.startswith(".")]
        left = swept(names, keep, self.folder)
        for name in left:
            if not (self.folder / name).is_file():
                raise _foreign(name, self.folder)
        for name in left:
            (self.folder / name).unlink()
        sweep_temporaries(self.folder)

    def release(self) -> None:
        """Lets others in; nothing when it was released before."""
        if self.held:
            os.close(self._lock)
            self._lock = -1

    def _take(self, kind: int) -> None:
        try:
            fcntl.flock(self._lock, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            self.release()
            raise UserError(f"another process is writing the store {self.folder}: wait for it to end") from None


def swept(names: Collection[str], keep: Collection[str], place: object) -> list[str]:
    """Which of the files in a store's place a killed writer left.

    Raises:
        UserError: there are others; a mistyped path must not cost a person their files.
    """
    for name in names:
        if name not in keep and not WRITTEN.fullmatch(name):
            raise _foreign(name, place)
    return [name for name in names if name not in keep]


def _foreign(name: str, place: object) -> UserError:
    return UserError(f"{place} is no activation store but holds {name}: choose an empty folder")
