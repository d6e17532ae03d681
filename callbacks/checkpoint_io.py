"""Checkpoints that appear whole or not at all, and that hold only tensors and plain values."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO

from run_store import UserError, atomic_file


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the target, flushes to the disk and renames; loads with weights_only=True.

    Lightning's own writer goes through $TMPDIR and does not flush: a kill there, or a power cut, leaves a truncated
    file under the final name.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Saves to a local path.

        Raises:
            UserError: the disk is full; the file that was there before is untouched.
        """
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(path) as temporary, open(temporary, "wb") as file:
            torch.save(checkpoint, file)

    def load_checkpoint(
        self,
        path: Any,
        map_location: Callable[..., Any] | None = lambda storage, location: storage,
        weights_only: bool | None = None,
    ) -> dict[str, Any]:
        """Loads a local checkpoint.

        Raises:
            UserError: it is missing, damaged, or holds more than tensors and plain values.
        """
        if not os.path.isfile(path):
            raise UserError(f"there is no checkpoint {path}")
        try:
            return torch.load(path, map_location=map_location, weights_only=True)  # type: ignore[no-any-return]
        except (UnpicklingError, RuntimeError, EOFError, OSError) as error:
            raise UserError(f"the checkpoint {path} is damaged or not one of ours: resume from another one") from error
