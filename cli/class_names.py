"""Every class that a config may name without its package: jsonargparse finds a short `class_path: TopK` once it is
imported.
"""

from backbones import Extractor
from callbacks import ActivationWriter, FeatureStatistics, LastCheckpoint, RunSummary, TrainingProgress
from datamodules.activations import ActivationDataModule
from datamodules.text import StandardLibrary
from datamodules.text_contexts import TextContexts
from lightning_modules.activation_extraction import ActivationExtraction
from lightning_modules.autoencoders import DatasetScale, LayerNormalization, NoNormalization, ReLU, TopK
from lightning_modules.schedules import WarmupDecay
from lightning_modules.sparse_autoencoding import SparseAutoencoding

__all__ = [
    "ActivationDataModule",
    "ActivationExtraction",
    "ActivationWriter",
    "DatasetScale",
    "Extractor",
    "FeatureStatistics",
    "LastCheckpoint",
    "LayerNormalization",
    "NoNormalization",
    "ReLU",
    "RunSummary",
    "SparseAutoencoding",
    "StandardLibrary",
    "TextContexts",
    "TopK",
    "TrainingProgress",
    "WarmupDecay",
]
