"""What every trained module here has in common: it can be loaded from a checkpoint folder, and go on from any."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import LightningModule
from typing_extensions import Self

from lightning_modules.checkpoint_files import as_one_file
from lightning_modules.epoch_ends import begin_next_epoch


class LoadsFolders(LightningModule):
    """Base of the modules that are trained."""

    @classmethod
    def load_from_checkpoint(
        cls,
        checkpoint_path: Any,
        map_location: Any = None,
        hparams_file: Any = None,
        strict: bool | None = None,
        weights_only: bool | None = None,
        **kwargs: Any,
    ) -> Self:
        """As Lightning's, and from a checkpoint folder, of which only weights and hyper-parameters are read.

        Raises:
            UserError: the checkpoint is damaged.
        """
        file = as_one_file(checkpoint_path)
        return super().load_from_checkpoint(file, map_location, hparams_file, strict, weights_only, **kwargs)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Sees to it that a training with a limit of steps goes on rightly from the end of an epoch."""
        if self._trainer is not None and self._trainer.max_steps != -1 and "loops" in checkpoint:
            begin_next_epoch(checkpoint["loops"]["fit_loop"])
