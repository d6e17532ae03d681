"""Tells the other processes of a training at once that this one will not go on."""

from __future__ import annotations

from collections.abc import Callable

from lightning.pytorch import Callback, LightningModule, Trainer


class EndsTogether(Callback):
    """To stand before all other callbacks, which may take their time over an exception while others wait.

    Args:
        tell: called with the exception.
    """

    def __init__(self, tell: Callable[[BaseException], object]) -> None:
        self.tell = tell

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self.tell(exception)
