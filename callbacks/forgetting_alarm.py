"""Tells how much of what an embedding model knew of general texts is lost while it is fine-tuned."""

from __future__ import annotations

import hashlib
import time
from itertools import islice
from typing import Any

import torch
from jsonargparse.typing import ClosedUnitInterval, PositiveFloat, PositiveInt
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

from backbones import load_tokenizer
from callbacks.forgetting_table import changed_latents, in_words
from callbacks.frozen_autoencoder import frozen_autoencoder
from callbacks.sample_predictions import SHARDED
from callbacks.undisturbed import undisturbed
from datamodules.ranks import rank_of
from datamodules.text import Corpus
from datamodules.triplets import TokenisedTexts
from datamodules.triplets.tokeniser import Column
from explanations import Look, StateReader, TextWatch, mean_cosine, texts_sha256
from lightning_modules.contrastive_embedding import ContrastiveEmbedding
from lightning_modules.functional import Drift, LatentLevels, drift_between
from lightning_modules.sparse_autoencoding import SparseAutoencoding
from run_store import UserError

NAMED = 3
"""Latents that the message of a stop tells."""
POORLY_RECONSTRUCTED = 0.5
"""FVU of the base's states from which on the dictionary says little of them."""


class ForgettingAlarm(Callback):
    """Before the first step and after each validation of a training (or, where nothing is held out, each epoch), reads
    the same general texts and tells what has become of the latents that they had in the base model: an autoencoder of
    the base's final token states, which stays as it is, reads the states of the model as it is now.

    Logged are, of latents i with mean activation a_i in the base and b_i now:

        forgetting/drift    Σ|b_i − a_i| / Σ a_i: the latents' relative changes, weighted by a_i
        forgetting/lost     the part of it that is activation of the base gone, in [0, 1]
        forgetting/gained   the part that is activation which was not there
        forgetting/fvu      FVU of the autoencoder on the states; above that of the base they have left its dictionary
        forgetting/cosine   mean cosine of the embeddings now with those of the base

    and as a table in TensorBoard the latents that changed most, with labels by the rule of `features.labels`. Texts and
    dictionary are fixed, so a model that has not moved has a drift of 0. What the base was is in the checkpoint.

    Args:
        autoencoder: of the base's final token states: a run (folder, id or name), a checkpoint's folder, what `import`
            has made, or a folder in any format of `export`.
        texts: what the model should not forget; its first documents are read, cut at the encoder's `max_length`.
        count: how many of them.
        column: whose prompt stands in front of them.
        name: stands in the place of `forgetting`, so that there can be several with other texts.
        stop_above: a drift above this stops the training; null never does.
        stop_below_cosine: a mean cosine below this does.
        latents: how many of those that changed most are shown.
        checkpoint: of a run: last, best (by val/fvu), or the folder of one.
        member: of a sweep, the autoencoder that is meant.
        folder: the folder of all runs; by default that which this run is in.
    """

    def __init__(
        self,
        autoencoder: str,
        texts: Corpus,
        count: PositiveInt = 500,
        column: Column = "positive",
        name: str = "forgetting",
        stop_above: PositiveFloat | None = None,
        stop_below_cosine: ClosedUnitInterval | None = None,
        latents: PositiveInt = 20,
        checkpoint: str = "last",
        member: str | None = None,
        folder: str | None = None,
    ) -> None:
        self.autoencoder = autoencoder
        self.texts = texts
        self.count = count
        self.column: Column = column
        self.name = name
        self.stop_above = stop_above
        self.stop_below_cosine = stop_below_cosine
        self.latents = latents
        self.checkpoint = checkpoint
        self.member = member
        self.folder = folder
        self.seconds = 0.0
        """Spent since the training began."""
        self._model: SparseAutoencoding | None = None
        self._watch: TextWatch | None = None
        self._base: Look | None = None
        self._own: torch.Tensor | None = None
        self._of: dict[str, str] = {}
        self._restored: dict[str, Any] = {}
        self._found: tuple[Drift, float, Look] | None = None

    @property
    def state_key(self) -> str:
        """Whose state is whose in a checkpoint."""
        return self._generate_state_key(name=self.name)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuses what it cannot watch.

        Raises:
            UserError: naming what, or there is no such autoencoder.
        """
        if stage != "fit":
            return
        if not isinstance(pl_module, ContrastiveEmbedding):
            raise UserError(
                f"callback ForgettingAlarm watches text encoders, and the model is a {type(pl_module).__name__}: leave "
                "the callback out"
            )
        if isinstance(trainer.strategy, SHARDED):
            raise UserError(
                f"callback ForgettingAlarm reads texts on each rank by itself, and {type(trainer.strategy).__name__} "
                "has the model in parts: leave the callback out"
            )
        self._model = frozen_autoencoder(trainer, self.autoencoder, self.checkpoint, self.member, self.folder)

    def state_dict(self) -> dict[str, Any]:
        """What the base was, and of which texts and autoencoder."""
        if self._base is None:
            return {}
        levels, fvu, embeddings, labels = self._base
        return {
            "of": dict(self._of),
            "magnitudes": levels.magnitudes.cpu(),
            "rates": levels.rates.cpu(),
            "fvu": fvu,
            "embeddings": embeddings.cpu(),
            "labels": dict(labels),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._restored = state_dict

    # ---- moments

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Reads the texts with the base, or takes what the checkpoint says of that.

        Raises:
            UserError: there is no text, the autoencoder is not of what the encoder pools, or the checkpoint knows no
                base or one of other texts or another autoencoder.
        """
        assert isinstance(pl_module, ContrastiveEmbedding)
        assert self._model is not None
        self.seconds, self._found = 0.0, None
        self._model.to(pl_module.device)
        reader = StateReader(pl_module.encoder, self._model)
        every = [document.text for document in islice(self.texts.documents(), self.count)]
        # what has no tokens has no state, and would count as a text that is forgotten
        lengths = pl_module.data.tokenised(every, self.column)[0].lengths.tolist()
        documents = [text for text, length in zip(every, lengths, strict=True) if length]
        if not documents:
            raise UserError("the corpus of callback ForgettingAlarm has no text: choose other texts")
        texts = _on(pl_module.device, pl_module.data.tokenised(documents, self.column))
        self._of = {"texts": texts_sha256(texts), "autoencoder": _sha256(self._model)}
        if self._restored:
            self._base = self._restored_base(pl_module.device)
        elif trainer.global_step:
            raise UserError(
                f"the checkpoint at step {trainer.global_step} does not know what callback ForgettingAlarm saw in the "
                "base: leave the callback out, or start a new run"
            )
        else:
            self._base = self._look_at_the_base(pl_module, TextWatch(reader, texts))
            self._tell_the_base(trainer, sum(part.tokens.numel() for part in texts), len(documents))
        rank = rank_of(trainer)
        own = slice(rank.rank, None, rank.world_size)
        self._own = self._base.embeddings[own]
        self._watch = TextWatch(reader, _on(pl_module.device, pl_module.data.tokenised(documents[own], self.column)))

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._watches(trainer):
            self._measure(trainer, pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stops the training, on every rank, since all have the same figures.

        Raises:
            UserError: more is forgotten than the settings allow.
        """
        if self._watches(trainer):
            self._stop_if_forgotten(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """As both, where there is no validation.

        Raises:
            UserError: more is forgotten than the settings allow.
        """
        if not sum(trainer.num_val_batches):
            self._measure(trainer, pl_module)
            self._stop_if_forgotten(trainer)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Gives memory back; the next training starts anew unless it resumes, too."""
        if stage == "fit":
            self._model = self._watch = self._base = self._own = self._found = None
            self._restored = {}

    def _watches(self, trainer: Trainer) -> bool:
        return not trainer.sanity_checking and trainer.state.fn == TrainerFn.FITTING and self._watch is not None

    # ---- looking

    def _look_at_the_base(self, pl_module: ContrastiveEmbedding, watch: TextWatch) -> Look:
        how = pl_module.tokenisations()[0]
        started = time.perf_counter()
        with undisturbed(pl_module):
            base = watch.look(load_tokenizer(how.tokenizer, how.revision))
        self.seconds = time.perf_counter() - started
        if not float(base.levels.magnitudes.sum()) > 0:
            raise UserError(
                f"no latent of autoencoder {self.autoencoder} fires on any of the texts of callback ForgettingAlarm: "
                "choose other texts or another autoencoder"
            )
        return base

    def _measure(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert self._base is not None
        assert self._own is not None
        assert self._watch is not None
        started = time.perf_counter()
        with undisturbed(pl_module):
            now = self._watch.look()
        drift, cosine = drift_between(self._base.levels, now.levels), mean_cosine(self._own, now.embeddings)
        self._found = drift, cosine, now
        pl_module.log_dict(self._figures(drift, now.fvu, cosine))
        self._write(trainer, changed_latents(self._base, now.levels, self.latents))
        self.seconds += time.perf_counter() - started

    def _tell_the_base(self, trainer: Trainer, tokens: int, documents: int) -> None:
        assert self._base is not None
        for logger in trainer.loggers:
            logger.log_metrics(self._figures(Drift(0.0, 0.0), self._base.fvu, 1.0), step=0)
        rank_zero_info(
            f"ForgettingAlarm read {documents:,} texts of {tokens:,} tokens in {self.seconds:.1f} s, and will after "
            "every validation."
        )
        if self._base.fvu > POORLY_RECONSTRUCTED:
            rank_zero_warn(
                f"autoencoder {self.autoencoder} of callback ForgettingAlarm misses {self._base.fvu:.0%} of the "
                "variance of the base's states, so its latents say little of them: train it on texts like these"
            )

    def _restored_base(self, device: torch.device) -> Look:
        state = self._restored
        for what in ("texts", "autoencoder"):
            if state["of"][what] != self._of[what]:
                raise UserError(
                    f"{what} of callback ForgettingAlarm is not what the run began with, so figures would not compare: "
                    "set it back, or start a new run"
                )
        levels = LatentLevels(state["magnitudes"].to(device), state["rates"].to(device))
        return Look(levels, state["fvu"], state["embeddings"].to(device), state["labels"])

    def _stop_if_forgotten(self, trainer: Trainer) -> None:
        assert self._base is not None
        assert self._found is not None
        drift, cosine, now = self._found
        signs = []
        if self.stop_above is not None and drift.total > self.stop_above:
            signs.append(f"the latents' drift is {drift.total:.3f} (stop_above is {self.stop_above:g})")
        if self.stop_below_cosine is not None and cosine < self.stop_below_cosine:
            signs.append(
                f"the mean cosine with the base is {cosine:.4f} (stop_below_cosine is {self.stop_below_cosine:g})"
            )
        if signs:
            raise UserError(
                f"at step {trainer.global_step} callback ForgettingAlarm finds its texts forgotten: "
                f"{' and '.join(signs)}, most of all {in_words(self._base, now.levels, NAMED)}; go back to a "
                "checkpoint from before, lower the learning rate, freeze layers or raise the limit"
            )

    def _write(self, trainer: Trainer, page: str) -> None:
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger) and trainer.is_global_zero:
                logger.experiment.add_text(f"{self.name}/latents that changed most", page, trainer.global_step)

    def _figures(self, drift: Drift, fvu: float, cosine: float) -> dict[str, float]:
        figures = {"drift": drift.total, "lost": drift.lost, "gained": drift.gained, "fvu": fvu, "cosine": cosine}
        return {f"{self.name}/{figure}": value for figure, value in figures.items()}


def _on(device: torch.device, texts: tuple[TokenisedTexts, ...]) -> tuple[TokenisedTexts, ...]:
    return tuple(TokenisedTexts(part.tokens.to(device), part.lengths.to(device)) for part in texts)


def _sha256(model: SparseAutoencoding) -> str:
    digest = hashlib.sha256()
    parts = (model.only.autoencoder.state_dict(), model.only.pair.state_dict())
    for name, tensor in sorted({**parts[0], **parts[1]}.items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
