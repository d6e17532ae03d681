"""What the latents fire on, in TensorBoard: histograms, and a page of labels and snippets."""

from __future__ import annotations

from typing import Any

import torch
from jsonargparse.typing import PositiveInt
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor

from callbacks.watched_latents import ToldLatents, WatchedLatents
from lightning_modules.metrics import log_density


class FeatureStatistics(Callback):
    """After each validation: the histogram of log10 firing densities, and for some latents the histogram of their
    magnitudes, a label by the rule of `features.labels`, marked as automatic, and the places where they fire most, the
    token marked; of a sweep for each member. Of latents with a sign the places of either sign stand in one table, by
    magnitude.

    The latents are drawn once from `seed`, so that a page can be compared with the one before. Dead ones are left out;
    dense ones, which as a rule mean nothing, stand apart.

    Args:
        latents: how many are watched.
        snippets: places shown for each.
        context: tokens shown on either side of the marked one.
        seed: draws the latents.
    """

    def __init__(
        self, latents: PositiveInt = 48, snippets: PositiveInt = 6, context: PositiveInt = 12, seed: int = 0
    ) -> None:
        self.latents = latents
        self.snippets = snippets
        self.context = context
        self.seed = seed

    def on_validation_start(self, trainer: Trainer, pl_module: Any) -> None:
        data = trainer.datamodule  # type: ignore[attr-defined]
        self._watched = {
            prefix: WatchedLatents(self._drawn(member.autoencoder.d_sae), self.snippets, self.context, data)
            for prefix, member in pl_module.members.prefixed()
        }

    def _drawn(self, d_sae: int) -> Tensor:
        generator = torch.Generator().manual_seed(self.seed)
        return torch.randperm(d_sae, generator=generator)[: self.latents].sort().values

    def on_validation_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, *_: Any) -> None:
        """Takes in what the watched latents are on the batch."""
        for prefix, codes in outputs["codes"].items():
            self._watched[prefix].update(codes, outputs["rows"])

    def on_validation_end(self, trainer: Trainer, pl_module: Any) -> None:
        if trainer.sanity_checking or not trainer.is_global_zero:
            return
        for prefix, member in pl_module.members.prefixed():
            density = member.density.cpu()
            told = self._watched[prefix].told()
            page = told.page(density)
            for logger in trainer.loggers:
                if isinstance(logger, TensorBoardLogger):
                    self._write(logger, prefix, told, page, density, trainer.global_step)

    @staticmethod
    def _write(
        logger: TensorBoardLogger, prefix: str, told: ToldLatents, page: str, density: Tensor, step: int
    ) -> None:
        logger.experiment.add_text(f"{prefix}latents", page, step)
        if bool((density > 0).any()):
            logger.experiment.add_histogram(f"{prefix}firing density (log10)", log_density(density), step)
        for place in told.alive():
            latent = int(told.watched.latents[place])
            logger.experiment.add_histogram_raw(
                f"{prefix}activations/latent {latent}", **told.histogram(place), global_step=step
            )
