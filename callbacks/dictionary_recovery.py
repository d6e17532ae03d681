"""How much of a known dictionary a training has found."""

from __future__ import annotations

from typing import Any

import torch
from jsonargparse.typing import NonNegativeInt
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from datamodules.synthetic import Truth
from datamodules.synthetic_activations import SyntheticActivations
from lightning_modules.functional import Codes, best_matching, gathered, max_cosines
from lightning_modules.members import Figures
from lightning_modules.metrics import Absorption
from lightning_modules.trainee import Trainee
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

    _compared: dict[str, Comparison]

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
        truth = trainer.datamodule.truth  # type: ignore[attr-defined]
        self._compared = {prefix: Comparison(truth, member) for prefix, member in pl_module.members.prefixed()}

    def on_validation_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, *_: Any) -> None:
        if bool((trainer.datamodule.truth.parents >= 0).any()):  # type: ignore[attr-defined]
            features = trainer.datamodule.codes(outputs["rows"].cpu()) > 0  # type: ignore[attr-defined]
            for prefix, codes in outputs["codes"].items():
                self._compared[prefix].update(features, codes)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        scores = {prefix: compared.scores(self.fired_at_least) for prefix, compared in self._compared.items()}
        pl_module.log_figures("val", scores)


class Comparison:
    """Of a learned dictionary with the true one.

    Args:
        truth: the true one.
        member: whose W_dec and latents are compared; its weights do not change in the meantime.
    """

    def __init__(self, truth: Truth, member: Trainee) -> None:
        self.truth = truth
        self.signed = member.autoencoder.signed
        self.seen = int(member.tokens_seen)
        self.device = member.tokens_seen.device
        self.learned = gathered(member.autoencoder.W_dec.detach()).float().cpu()
        self.matching = best_matching(truth.atoms, self.learned, self.signed)
        hierarchical = bool((truth.parents >= 0).any())
        self.absorption = Absorption(truth.parents).to(self.device) if hierarchical else None

    def update(self, features: Tensor, codes: Codes) -> None:
        """Takes in a batch, where the truth has a hierarchy.

        Args:
            features: bool [b, features], whether each is there.
            codes: the latents of the same rows.
        """
        if self.absorption is None:
            return
        true, learned, cosines = self.matching
        values = codes.columns(learned.to(self.device)).cpu()
        latents = torch.zeros_like(features)
        latents[:, true] = values * (cosines.sign() if self.signed else 1) > 0
        self.absorption.update(features.to(self.device), latents.to(self.device))

    def scores(self, fired_at_least: int) -> Figures:
        """Scalars by name."""
        cosines = self.matching.cosines.abs() if self.signed else self.matching.cosines
        found = torch.zeros(len(self.truth.atoms), dtype=torch.bool)
        found[self.matching.true] = cosines > FOUND_ABOVE
        counted = self.truth.probabilities * self.seen >= fired_at_least
        scores: Figures = {
            "recovered": (found & counted).sum() / counted.sum().clamp_min(1),
            "mean_max_cosine": max_cosines(self.truth.atoms, self.learned, self.signed).mean(),
        }
        return scores if self.absorption is None else {**scores, **self.absorption.compute()}
