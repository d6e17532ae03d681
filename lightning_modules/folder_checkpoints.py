"""What every trained module here has in common: it can be loaded from a checkpoint folder, and go on from any."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import LightningModule
from typing_extensions import Self

from lightning_modules.checkpoint_files import as_one_file
from lightning_modules.epoch_ends import begin_afresh, begin_next_epoch


class LoadsFolders(LightningModule):
    """Base of the modules that are trained."""

    _begins_epoch = False
    """Whether a checkpoint from the end of an epoch was loaded."""

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
        """Sees to it that a training goes on exactly where it was."""
        if self._trainer is None:
            return
        # Lightning does so after the state is loaded, which is then rounded to what buffers are made in
        self._trainer.precision_plugin.convert_module(self)
        if self._trainer.max_steps != -1 and "loops" in checkpoint:
            self._begins_epoch = begin_next_epoch(checkpoint["loops"]["fit_loop"])

    def on_train_epoch_start(self) -> None:
        """Sees to it that an epoch after a checkpoint begins as one in a straight training."""
        if self._begins_epoch:
            self._begins_epoch = False
            begin_afresh(self.trainer.fit_loop)
