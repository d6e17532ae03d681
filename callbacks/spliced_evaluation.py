"""What a model still does when an autoencoder's reconstruction passes at its hook points."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from jsonargparse.typing import PositiveInt
from lightning.pytorch import Callback, Trainer
from torch import Tensor

from backbones import CleanPass, Extractor, SplicedModel, has_language_head
from datamodules.ranks import rank_of
from datamodules.shards import ActivationBatch
from datamodules.stored_rows import StoredRows
from datamodules.text import TokenBatch
from lightning_modules.functional import Pooling
from lightning_modules.members import Figures
from lightning_modules.memory_guard import ran_out_of_memory
from lightning_modules.metrics import SplicedEmbedding, SplicedLanguageModel, Way
from lightning_modules.sparse_autoencoding import SparseAutoencoding
from lightning_modules.trainee import Trainee
from run_store import Split, UserError


class SplicedEvaluation(Callback):
    """`validate` and `test` also run the model on held-out text, with the reconstruction in place of the activations
    and, as references, with zeros and with the mean activation.

    Every context is first read as it is; the autoencoder reconstructs what passed at the hook points then, and all
    hook points that it reconstructs are replaced at once in a second reading. A transcoder's input is that of the first
    reading, too. Only tokens that give rows are replaced, in all three ways alike; the mean is that of the split's
    activations. The model computes in the extractor's precision, the autoencoder in the Trainer's.

    Documents are those of the split that the Trainer measures on. Each rank reads its share of the batches.

    Args:
        tokens: how many of the split's tokens are read, four times each, and once more for each further member of a
            sweep.
        batch_size: contexts in one forward of the model.
        measure: the loss of the next token, for models with a language head, or the cosine of the final embedding; auto
            takes the loss where the model was saved with such a head.
        pooling: how an embedding model makes one vector of a context.
        during_fit: whether every validation of a training is followed by it, too.
    """

    def __init__(
        self,
        tokens: PositiveInt = 20_000,
        batch_size: PositiveInt = 8,
        measure: Literal["auto", "language_model", "embedding"] = "auto",
        pooling: Pooling = "mean",
        during_fit: bool = False,
    ) -> None:
        self.tokens = tokens
        self.batch_size = batch_size
        self.measure = measure
        self.pooling: Pooling = pooling
        self.during_fit = during_fit
        self._model: SplicedModel | None = None
        self._sums: list[Tensor] = []
        self._rows = 0

    def setup(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
        """Refuses what it cannot measure.

        Raises:
            UserError: it is not known which model and text the activations come from, the model has no language head,
                or there are fewer tokens than in one context.
        """
        if stage not in ("validate", "test") and not self.during_fit:
            return
        extractor, text = self._extractor(trainer), self._data(trainer).text  # type: ignore[attr-defined]
        if self.tokens < text.context_length:
            raise UserError(
                f"tokens of callback SplicedEvaluation is {self.tokens}, less than one context of "
                f"{text.context_length} tokens: raise it"
            )
        if self.measure == "language_model" and not _predicts_text(extractor):
            raise UserError(
                f"measure of callback SplicedEvaluation is language_model, and model {extractor.model!r} was saved "
                "without a head that predicts the next token: set measure to embedding"
            )

    def teardown(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
        """Gives the model's memory back."""
        self._model = None

    def on_validation_start(self, trainer: Trainer, pl_module: Any) -> None:
        self._sums, self._rows = [], 0

    def on_test_start(self, trainer: Trainer, pl_module: Any) -> None:
        self._sums, self._rows = [], 0

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: Any,
        outputs: Any,
        batch: ActivationBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Adds up the activations, for their mean."""
        if self._measures(trainer):
            sums = [part.sum(dim=0, dtype=torch.float64) for part in batch.activations]
            self._sums = [a + b for a, b in zip(self._sums, sums, strict=True)] if self._sums else sums
            self._rows += len(batch.rows)

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: Any,
        outputs: Any,
        batch: ActivationBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """As `on_validation_batch_end`."""
        self.on_validation_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        if self._measures(trainer):
            self._log(trainer, pl_module, "val", "validation")

    def on_test_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        self._log(trainer, pl_module, "test", "test")

    def _measures(self, trainer: Trainer) -> bool:
        return not trainer.sanity_checking and (self.during_fit or trainer.state.fn != "fit")

    def _log(self, trainer: Trainer, pl_module: SparseAutoencoding, stage: str, split: Split) -> None:
        try:
            scores = self._scores(trainer, pl_module, split)
        except (MemoryError, RuntimeError) as error:
            if not ran_out_of_memory(error):
                raise
            raise UserError(
                "memory ran out when the model was read with its activations replaced: lower batch_size of callback "
                "SplicedEvaluation, or leave it out"
            ) from error
        pl_module.log_figures(stage, scores)

    def _scores(self, trainer: Trainer, pl_module: SparseAutoencoding, split: Split) -> dict[str, Figures]:
        """The metrics of each member by name, over the tokens of all ranks."""
        data, extractor = self._data(trainer), self._extractor(trainer)
        language = _predicts_text(extractor) if self.measure == "auto" else self.measure == "language_model"
        if self._model is None:
            self._model = SplicedModel(extractor, language)
        metrics = {prefix: self._metric(language).to(pl_module.device) for prefix, _ in pl_module.members.prefixed()}
        text = data.text.part(split, data.seed, *data.shares.values(), self.tokens)  # type: ignore[attr-defined]
        text.batch_size = self.batch_size
        means = self._means(trainer)
        rank = rank_of(trainer)
        for number, batch in enumerate(text.batches()):
            if number % rank.world_size == rank.rank:
                self._update(metrics, trainer, pl_module, batch, means)
        return {prefix: dict(metric.compute()) for prefix, metric in metrics.items()}

    def _metric(self, language: bool) -> SplicedLanguageModel | SplicedEmbedding:
        return SplicedLanguageModel() if language else SplicedEmbedding(self.pooling)

    def _update(
        self,
        metrics: Mapping[str, SplicedLanguageModel | SplicedEmbedding],
        trainer: Trainer,
        pl_module: SparseAutoencoding,
        batch: TokenBatch,
        means: dict[str, Tensor],
    ) -> None:
        """Reads a batch of contexts in all ways: without an autoencoder once for all members that reconstruct the same
        hook points, and once with each.
        """
        assert self._model is not None
        clean = self._model.read(batch)
        ablated: dict[tuple[str, ...], dict[Way, Tensor]] = {}
        for prefix, member in pl_module.members.prefixed():
            seen = member.seen(list(self._data(trainer).shapes))
            names = tuple(seen[place] for place in member.pair.sides.reconstructed)
            if names not in ablated:
                mean = {name: means[name] for name in names}
                zero = {name: torch.zeros_like(value) for name, value in mean.items()}
                outputs: dict[Way, Tensor] = {"clean": clean.output}
                outputs["zero_ablation"] = self._model.splice(batch, clean.kept, zero)
                outputs["mean_ablation"] = self._model.splice(batch, clean.kept, mean)
                ablated[names] = outputs
            reconstructions = self._reconstructions(trainer, member, clean)
            spliced = self._model.splice(batch, clean.kept, dict(zip(names, reconstructions, strict=True)))
            readings: dict[Way, Tensor] = {**ablated[names], "spliced": spliced}
            for way, output in readings.items():
                metrics[prefix].update(way, output, clean.output, batch)

    def _reconstructions(self, trainer: Trainer, member: Trainee, clean: CleanPass) -> list[Tensor]:
        """[n, d] of every hook point that a member reconstructs, from what passed in the clean reading."""
        data, precision = self._data(trainer), trainer.precision_plugin
        rows = [clean.rows[name].to(member.tokens_seen.device) for name in member.seen(list(data.shapes))]
        parts: list[tuple[Tensor, ...]] = []
        # no more rows at a time than in a batch of the autoencoder's, which is known to fit
        for chunk in zip(*(torch.split(values, data.batch_size) for values in rows), strict=True):
            with precision.forward_context():
                parts.append(member(*precision.convert_input(chunk))[1])
        return [torch.cat(column).float() for column in zip(*parts, strict=True)]

    def _means(self, trainer: Trainer) -> dict[str, Tensor]:
        """[d] the mean activation of every hook point, over the rows of all ranks."""
        rows = torch.tensor(float(self._rows), dtype=torch.float64, device=self._sums[0].device)
        total, *sums = (trainer.strategy.reduce(value, reduce_op="sum") for value in (rows, *self._sums))
        names = self._data(trainer).shapes
        return {name: (value / total).float() for name, value in zip(names, sums, strict=True)}

    @staticmethod
    def _data(trainer: Trainer) -> StoredRows[Any]:
        data = getattr(trainer, "datamodule", None)
        if not isinstance(data, StoredRows):
            raise UserError(
                "callback SplicedEvaluation runs a model on the text that activations come from, and this data has "
                "neither: leave the callback out"
            )
        return data

    @classmethod
    def _extractor(cls, trainer: Trainer) -> Extractor:
        data = cls._data(trainer)
        extractor = getattr(data, "extractor", None)
        if extractor is None or getattr(data, "text", None) is None:
            raise UserError(
                "callback SplicedEvaluation runs the model on held-out text: set data.extractor and data.text to what "
                "the store was made with, or leave the callback out"
            )
        if not isinstance(extractor, Extractor):
            raise UserError(
                f"callback SplicedEvaluation replaces the activations of one model, and data.extractor is a "
                f"{type(extractor).__name__} of several: leave the callback out"
            )
        return extractor


def _predicts_text(extractor: Extractor) -> bool:
    return has_language_head(extractor.model, extractor.revision, extractor.remote_code_of)
