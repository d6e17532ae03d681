"""Starting from what another run has learned."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, Trainer

from lightning_modules.checkpoint_files import WEIGHTS, read_weights
from run_store import UserError


class InitialWeights(Callback):
    """Starts a new training from the weights of a checkpoint, and from nothing else of it.

    Args:
        checkpoint: the folder of a checkpoint.
        member: of a sweep, whose weights are meant; by default each member starts from the one of its name.
    """

    def __init__(self, checkpoint: Path, member: str | None = None) -> None:
        self.checkpoint = checkpoint
        self.member = member

    def on_fit_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Raises:
        UserError: the weights do not fit the model, or are of several members and none of them is named.
        """
        weights, _ = read_weights(self.checkpoint / WEIGHTS)
        try:
            pl_module.members.start_from(weights, self.member)
        except RuntimeError as error:
            reason = " ".join(str(error).split())
            raise UserError(
                f"the weights of {self.checkpoint} do not fit the model ({reason}): set the same sizes"
            ) from error
