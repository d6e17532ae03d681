"""Asking a running process to save and stop: a file in the run's folder, which it looks for at every step."""

from __future__ import annotations

import os
from pathlib import Path

from run_store.errors import UserError

PAUSE_NAME = "pause.request"


def request_pause(folder: str | os.PathLike[str]) -> None:
    """Asks whoever works on the run to save and stop.

    Raises:
        UserError: the folder cannot be written to.
    """
    try:
        Path(folder, PAUSE_NAME).touch()
    except OSError as error:
        raise UserError(
            f"the run {folder} cannot be asked to pause ({error.strerror}): mend its permissions"
        ) from error


def is_pause_requested(folder: str | os.PathLike[str]) -> bool:
    """Whether somebody has asked; one look at the file system."""
    return os.path.exists(os.path.join(folder, PAUSE_NAME))


def withdraw_pause(folder: str | os.PathLike[str]) -> None:
    """Takes the request back, because it was followed or the run starts anew."""
    Path(folder, PAUSE_NAME).unlink(missing_ok=True)
