"""The progress bar of an extraction."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import TQDMProgressBar
from lightning.pytorch.callbacks.progress.tqdm_progress import Tqdm

from datamodules.text import TokenWindow


class ExtractionProgress(TQDMProgressBar):
    """Counts the tokens that this process has read, padding left out, and those that were on disk when it began."""

    def init_predict_tqdm(self) -> Tqdm:
        text, processes = getattr(self.trainer, "datamodule", None), self.trainer.world_size
        total = getattr(text, "total_tokens", None)
        first = getattr(text, "first_window", 0) if processes == 1 and getattr(text, "packed", False) else 0
        return Tqdm(
            desc="Extracting activations",
            total=None if total is None else total // processes,
            initial=first * text.contexts_a_window * text.context_length if first and text is not None else 0,
            unit=" tokens",
            unit_scale=True,
            disable=self.is_disabled,
            dynamic_ncols=True,
        )

    def on_predict_batch_start(self, *_: Any, **__: Any) -> None:
        """The bar's length is known already."""

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: TokenWindow,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self.predict_progress_bar.update(sum(int(part.lengths.sum()) for part in batch.batches))
