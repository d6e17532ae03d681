"""Numbering the runs of one identity."""

from __future__ import annotations

import os
from pathlib import Path

from run_store.atomic import flush_to_disk
from run_store.errors import UserError
from run_store.layout import variant_folders, variant_number


def claim_variant(folder: str | os.PathLike[str]) -> Path:
    """Makes and returns the next of `folder`'s variants v1, v2, …

    However many processes claim at once, each gets a number of its own and none is left out: making a folder is
    atomic, and a number is passed over only when it is taken.

    Raises:
        UserError: the folder cannot be written to.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        number = 1 + max((variant_number(path) or 0 for path in variant_folders(folder)), default=0)
        while True:
            variant = folder / f"v{number}"
            try:
                variant.mkdir()
            except FileExistsError:
                number += 1
            else:
                flush_to_disk(folder)
                return variant
    except OSError as error:
        raise UserError(f"cannot make a run in {folder} ({error.strerror}): choose another folder") from error
