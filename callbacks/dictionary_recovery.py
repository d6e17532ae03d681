"""How much of a known dictionary a training has found."""

from __future__ import annotations

from typing import Any

import torch
from jsonargparse.typing import NonNegativeInt
from lightning.pytorch import Callback, LightningModule, Trainer

from datamodules.synthetic_activations import SyntheticActivations
from lightning_modules.functional import best_matching, max_cosines
from lightning_modules.metrics import Absorption
from run_store import UserError

FOUND_ABOVE = 0.9
"""An atom counts as found when the learned one that it is matched with has a greater cosine with it."""


class DictionaryRecovery(Callback):
    """After each validation compares W_dec with the true dictionary:

        val/recovered        share of the true features that are found, of those that have fired `fired_at_least` times
                             in the rows trained on so far (in expectation: rate × rows); 0 while none has
        val/mean_max_cosine  mean over all true atoms of the cosine of the learned one that is most like it
        val/absorption, val/missed_alone   see `Absorption`, where the truth has a hierarchy

    A feature is found when the atom that it is matched with has a cosine above 0.9 with it. The matching is the best
    one-to-one, so that one latent cannot stand for two features; the latent of a feature is the one matched with it.
    Latents that have a sign stand for a direction and its opposite: |cosine| counts, and such a latent fires for the
    feature where its sign is that of the cosine.

    Args:
        fired_at_least: how often a feature must have fired in training to be looked for.
    """

    _absorption: Absorption | None = None

    def __init__(self, fired_at_least: NonNegativeInt = 1000) -> None:
        self.fired_at_least = fired_at_least

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuses data without a truth.

        Raises:
            UserError: the dictionary is not known.
        """
        if not isinstance(getattr(trainer, "datamodule", None), SyntheticActivations):
            raise UserError(
                "callback DictionaryRecovery compares with a dictionary that is known: set data to "
                "SyntheticActivations or leave the callback out"
            )

    def on_validation_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Matches the dictionaries: the weights do not change until validation is over."""
        truth, autoencoder = trainer.datamodule.truth, pl_module.autoencoder  # type: ignore[attr-defined]
        self._learned = autoencoder.W_dec.detach().float().cpu()
        self._matching = best_matching(truth.atoms, self._learned, autoencoder.signed)
        hierarchical = bool((truth.parents >= 0).any())
        self._absorption = Absorption(truth.parents).to(pl_module.device) if hierarchical else None

    def on_validation_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, *_: Any) -> None:
        if self._absorption is not None:
            features = trainer.datamodule.codes(outputs["rows"].cpu()) > 0  # type: ignore[attr-defined]
            true, learned, cosines = self._matching
            values = outputs["codes"].columns(learned.to(pl_module.device)).cpu()
            latents = torch.zeros_like(features)
            latents[:, true] = values * (cosines.sign() if pl_module.autoencoder.signed else 1) > 0
            self._absorption.update(features.to(pl_module.device), latents.to(pl_module.device))

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        truth, signed = trainer.datamodule.truth, pl_module.autoencoder.signed  # type: ignore[attr-defined]
        cosines = self._matching.cosines.abs() if signed else self._matching.cosines
        found = torch.zeros(len(truth.atoms), dtype=torch.bool)
        found[self._matching.true] = cosines > FOUND_ABOVE
        counted = truth.probabilities * int(pl_module.tokens_seen) >= self.fired_at_least
        pl_module.log("val/recovered", (found & counted).sum() / counted.sum().clamp_min(1))
        pl_module.log("val/mean_max_cosine", max_cosines(truth.atoms, self._learned, signed).mean())
        if self._absorption is not None:
            pl_module.log_dict({f"val/{name}": value for name, value in self._absorption.compute().items()})
