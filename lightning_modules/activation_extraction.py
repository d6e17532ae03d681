"""Extraction of activations as a prediction."""

from __future__ import annotations

from lightning.pytorch import LightningModule

from backbones import CapturedRows, RowExtractor
from datamodules.text import TokenWindow


class ActivationExtraction(LightningModule):
    """Predicts, for a window of contexts, the rows of activations in it; `callbacks.ActivationWriter` stores them.

    Args:
        extractor: The model, its hook points and filters.
    """

    def __init__(self, extractor: RowExtractor) -> None:
        super().__init__()
        self.extractor = extractor

    def configure_model(self) -> None:
        """Loads the model.

        Raises:
            UserError: it cannot be loaded or lacks a hook point.
        """
        self.extractor.load()

    def predict_step(self, batch: TokenWindow) -> CapturedRows:
        return self.extractor.read_window(batch)
