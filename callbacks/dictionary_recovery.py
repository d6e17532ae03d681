"""How much of a known dictionary a training has found."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from datamodules.synthetic_activations import SyntheticActivations
from lightning_modules.functional import best_matching, max_cosines
from run_store import UserError

FOUND_ABOVE = 0.9
"""An atom counts as found when the learned one that it is matched with has at least this cosine with it."""


class DictionaryRecovery(Callback):
    """After each validation: `val/mean_max_cosine`, and the share of the true atoms that are found, `val/recovered`.

    Found is measured on the best one-to-one matching, so that one latent cannot stand for two features.
    """

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

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        atoms = trainer.datamodule.truth.atoms  # type: ignore[attr-defined]
        learned = pl_module.autoencoder.W_dec.detach().float().cpu()
        found = (best_matching(atoms, learned).cosines >= FOUND_ABOVE).sum() / len(atoms)
        pl_module.log("val/mean_max_cosine", max_cosines(atoms, learned).mean())
        pl_module.log("val/recovered", found)
