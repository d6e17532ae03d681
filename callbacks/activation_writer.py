"""Predicted activations into a store."""

from __future__ import annotations

from jsonargparse.typing import PositiveInt
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info

from backbones import CapturedRows, Extractor
from datamodules.extraction import describe_source
from datamodules.shards import SHARD_BYTES, StoreWriter
from datamodules.text import TokenBatch
from datamodules.text_contexts import TextContexts
from lightning_modules.activation_extraction import ActivationExtraction
from run_store import UserError


class ActivationWriter(Callback):
    """Writes what `ActivationExtraction` predicts into an activation store, shard by shard.

    It is no BasePredictionWriter: that one asks a DataLoader for the indices of samples, which a stream has not.

    Args:
        store: Folder of the store, which must not exist yet.
        shard_bytes: Upper bound of one hook point's data in a shard.
    """

    def __init__(self, store: str, shard_bytes: PositiveInt = SHARD_BYTES) -> None:
        self.store = store
        self.shard_bytes = shard_bytes
        self._writer: StoreWriter | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuses what could give no store, or half of one.

        Raises:
            UserError: the model or the data are of other classes, there are several devices, or batches are limited.
        """
        _extractor_of(pl_module)
        _text_of(trainer)
        if trainer.world_size > 1:
            raise UserError("a store is written by one process: set trainer.devices and trainer.num_nodes to 1")
        # The integer 1 means one batch, the float all of them.
        if isinstance(trainer.limit_predict_batches, int) or trainer.limit_predict_batches < 1.0:
            raise UserError(
                "trainer.limit_predict_batches would cut the store short: set max_tokens of the text instead"
            )

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # Rows are written as they come; Lightning would keep all of them in memory.
        trainer.predict_loop.return_predictions = False
        extractor = _extractor_of(pl_module)
        self._writer = StoreWriter(self.store, extractor.shapes(), extractor.store_dtype, self.shard_bytes)

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: CapturedRows,
        batch: TokenBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._open_writer.append(*outputs)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        extractor, text = _extractor_of(pl_module), _text_of(trainer)
        manifest = self._open_writer.finish(describe_source(extractor, text), text.document_names())
        rank_zero_info(f"Extracted the activation store {self.store}: {manifest.rows:,} rows.")

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        if self._writer is not None:
            self._writer.abort()

    @property
    def _open_writer(self) -> StoreWriter:
        if self._writer is None:
            raise RuntimeError("the store is opened when prediction starts")
        return self._writer


def _extractor_of(pl_module: LightningModule) -> Extractor:
    if not isinstance(pl_module, ActivationExtraction):
        raise UserError("callback ActivationWriter stores what ActivationExtraction predicts: set model to that class")
    return pl_module.extractor


def _text_of(trainer: Trainer) -> TextContexts:
    text = getattr(trainer, "datamodule", None)
    if not isinstance(text, TextContexts):
        raise UserError("callback ActivationWriter needs the text that the rows come from: set data to TextContexts")
    return text
