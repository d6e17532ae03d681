"""Predicted activations into a store."""

from __future__ import annotations

from jsonargparse.typing import PositiveInt
from lightning.pytorch import Callback, LightningModule, Trainer

from backbones import CapturedRows, RowExtractor
from datamodules.extraction import Extraction
from datamodules.processes import Processes
from datamodules.shards import SHARD_BYTES
from datamodules.text import TokenWindow
from datamodules.text_contexts import TextContexts
from lightning_modules.activation_extraction import ActivationExtraction
from run_store import UserError


class ActivationWriter(Callback):
    """Writes what `ActivationExtraction` predicts into an activation store, shard by shard.

    A prediction that was killed goes on where it stopped when it is started again with the same settings. With several
    devices each process writes shards of its own share of the text, and the store is whole when all of them are done.

    It is no BasePredictionWriter: that one asks a DataLoader for the indices of samples, which a stream has not.

    Args:
        store: Folder of the store, which must not exist yet, or be an unfinished one of the same settings.
        shard_bytes: Upper bound of one hook point's data in a shard.
    """

    def __init__(self, store: str, shard_bytes: PositiveInt = SHARD_BYTES) -> None:
        self.store = store
        self.shard_bytes = shard_bytes
        self._extraction: Extraction | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Opens the store, and has the text begin where an earlier prediction stopped.

        Raises:
            UserError: the model or the data are of other classes, batches are limited, or the folder cannot take the
                store.
        """
        extractor, text = _extractor_of(pl_module), _text_of(trainer)
        # The integer 1 means one batch, the float all of them.
        if isinstance(trainer.limit_predict_batches, int) or trainer.limit_predict_batches < 1.0:
            raise UserError(
                "trainer.limit_predict_batches would cut the store short: set max_tokens of the text instead"
            )
        # Rows are written as they come; Lightning would keep all of them in memory.
        trainer.predict_loop.return_predictions = False
        self._extraction = Extraction(extractor, text, self.store, self.shard_bytes, Processes.of(trainer))
        text.first_window = self._extraction.next_window

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: CapturedRows,
        batch: TokenWindow,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._open_extraction.append(batch.number, outputs)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Finishes the store. Here, because the end of the prediction is not told to a process without windows, and
        after an exception this is not called."""
        self._open_extraction.finish()
        _text_of(trainer).first_window = 0

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        if self._extraction is not None:
            self._extraction.close()

    @property
    def _open_extraction(self) -> Extraction:
        if self._extraction is None:
            raise RuntimeError("the store is opened by setup(), which has not been called")
        return self._extraction


def _extractor_of(pl_module: LightningModule) -> RowExtractor:
    if not isinstance(pl_module, ActivationExtraction):
        raise UserError("callback ActivationWriter stores what ActivationExtraction predicts: set model to that class")
    return pl_module.extractor


def _text_of(trainer: Trainer) -> TextContexts:
    text = getattr(trainer, "datamodule", None)
    if not isinstance(text, TextContexts):
        raise UserError("callback ActivationWriter needs the text that the rows come from: set data to TextContexts")
    return text
