"""Starting from what another run has learned."""

from __future__ import annotations

from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer

from lightning_modules.checkpoint_files import WEIGHTS, read_weights
from run_store import UserError


class InitialWeights(Callback):
    """Starts a new training from the weights of a checkpoint, and from nothing else of it.

    Args:
        checkpoint: the folder of a checkpoint.
    """

    def __init__(self, checkpoint: Path) -> None:
        self.checkpoint = checkpoint

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Raises:
        UserError: the weights do not fit the model.
        """
        weights, _ = read_weights(self.checkpoint / WEIGHTS)
        try:
            pl_module.load_state_dict(weights)
        except RuntimeError as error:
            reason = " ".join(str(error).split())
            raise UserError(
                f"the weights of {self.checkpoint} do not fit the model ({reason}): set the same sizes"
            ) from error
        # counters say what this training has seen
        for name in getattr(pl_module, "counters", ()):
            pl_module.get_buffer(name).zero_()
