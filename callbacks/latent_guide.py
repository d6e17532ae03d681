"""Lets hard negatives be chosen by the latents that documents share with the positive."""

from __future__ import annotations

import copy
from typing import Any

import torch
from jsonargparse.typing import PositiveInt
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn

from backbones import TextEncoder
from callbacks.frozen_autoencoder import frozen_autoencoder
from callbacks.undisturbed import undisturbed
from datamodules.contrastive_triplets import TripletDataModule
from datamodules.triplets import TokenisedTexts
from explanations import PooledReader, StateReader, latent_sets
from lightning_modules.contrastive_embedding import ContrastiveEmbedding
from lightning_modules.functional import LatentSets
from lightning_modules.sparse_autoencoding import SparseAutoencoding
from run_store import UserError


class LatentGuide(Callback):
    """Gives the mining of hard negatives (`mining.most_overlap`, `mining.sampling: least_overlap`) the latents of the
    training documents, as the base model has them: whenever negatives are mined, it loads the base once more, reads the
    documents and lets it go.

    A latent weighs ‖W_i‖ times the logarithm of how rare it is among the documents, so that those which all have say
    nothing.

    Args:
        autoencoder: of the base's final token states: a run (folder, id or name), a checkpoint's folder, what `import`
            has made, or a folder in any format of `export`.
        latents: how many are kept of a document, those that weigh most.
        checkpoint: of a run: last, best (by val/fvu), or the folder of one.
        member: of a sweep, the autoencoder that is meant.
        folder: the folder of all runs; by default that which this run is in.
    """

    def __init__(
        self,
        autoencoder: str,
        latents: PositiveInt = 64,
        checkpoint: str = "last",
        member: str | None = None,
        folder: str | None = None,
    ) -> None:
        self.autoencoder = autoencoder
        self.latents = latents
        self.checkpoint = checkpoint
        self.member = member
        self.folder = folder
        self._model: SparseAutoencoding | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Tells the data what gives latents.

        Raises:
            UserError: model and data are not those of a contrastive training of one model, or there is no such
                autoencoder.
        """
        if stage != "fit":
            return
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        if not isinstance(pl_module, ContrastiveEmbedding) or not isinstance(data, TripletDataModule):
            raise UserError(
                f"callback LatentGuide guides a ContrastiveEmbedding on a TripletDataModule, not a "
                f"{type(pl_module).__name__} on a {type(data).__name__}: leave the callback out"
            )
        if data.mining is None or not data.mining.compares_latents:
            rank_zero_warn(
                "callback LatentGuide does nothing, since mining compares no latents: set data.mining.most_overlap, or "
                "data.mining.sampling to least_overlap"
            )
            return
        self._model = frozen_autoencoder(trainer, self.autoencoder, self.checkpoint, self.member, self.folder)
        encoder = pl_module.encoder
        if not isinstance(encoder, TextEncoder):
            raise UserError(
                f"callback LatentGuide reads the states of one model, and encoder {type(encoder).__name__} is made of "
                "several: leave the callback out, or take a TextEncoder"
            )
        # without weights, so a copy will load those of the base, whatever the other has become by then
        base = encoder.unbuilt()
        data.guide_with(lambda texts: self._sets(base, texts, pl_module.device))

    def _sets(self, base: TextEncoder, texts: tuple[TokenisedTexts, ...], device: torch.device) -> LatentSets:
        assert self._model is not None
        encoder, model = copy.deepcopy(base), self._model.to(device)
        # a model whose file leaves a weight out draws it, and a resumed training mines at another moment
        with undisturbed(encoder):
            encoder.build()
            encoder.to(device).eval()
            reader = PooledReader(StateReader(encoder, model))
            pooled = reader.read([TokenisedTexts(part.tokens.to(device), part.lengths.to(device)) for part in texts])
        return latent_sets(pooled.codes, len(texts[0].lengths), model.autoencoder.W_dec.detach(), self.latents)
