"""Stops a training whose embeddings no longer tell texts apart."""

from __future__ import annotations

from jsonargparse.typing import ClosedUnitInterval, PositiveFloat
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn

from lightning_modules.functional import collapse_sentence
from run_store import UserError


class CollapseAlarm(Callback):
    """Looks after each validation of a training at `val/mean_cosine` and `val/effective_rank`, which the model logs.

    Args:
        mean_cosine: of two different texts, from which on the embeddings have collapsed; null to leave it out.
        effective_rank: of the embeddings, up to which they have; null to leave it out.
    """

    def __init__(
        self, mean_cosine: ClosedUnitInterval | None = 0.99, effective_rank: PositiveFloat | None = 2.0
    ) -> None:
        self.mean_cosine = mean_cosine
        self.effective_rank = effective_rank

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuses to look at nothing.

        Raises:
            UserError: both limits are null.
        """
        if self.mean_cosine is None and self.effective_rank is None:
            raise UserError(
                "mean_cosine and effective_rank of callback CollapseAlarm are both null: set one or leave the callback "
                "out"
            )

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stops the training, on every rank, since all read the same figures.

        Raises:
            UserError: the embeddings have collapsed, or the model does not log what has a limit.
        """
        if trainer.sanity_checking or trainer.state.fn != TrainerFn.FITTING:
            return
        mean_cosine = self._figure(trainer, pl_module, "mean_cosine", self.mean_cosine)
        rank = self._figure(trainer, pl_module, "effective_rank", self.effective_rank)
        sentence = collapse_sentence(mean_cosine, rank, self.mean_cosine, self.effective_rank)
        if sentence is not None:
            raise UserError(f"at step {trainer.global_step} {sentence}")

    @staticmethod
    def _figure(trainer: Trainer, pl_module: LightningModule, setting: str, limit: float | None) -> float | None:
        if limit is None:
            return None
        name = f"val/{setting}"
        if name not in trainer.callback_metrics:
            raise UserError(
                f"{setting} of callback CollapseAlarm is {limit:g}, and model {type(pl_module).__name__} logs no "
                f"{name}: set {setting} to null or leave the callback out"
            )
        return float(trainer.callback_metrics[name])
