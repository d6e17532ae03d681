"""Every class that a config may name without its package: jsonargparse finds a short `class_path: TopK` once it is
imported.
"""

from backbones import Extractor, JointExtractor
from callbacks import (
    ActivationWriter,
    CheckpointRetention,
    DictionaryRecovery,
    ExtractionProgress,
    FeatureStatistics,
    RunSummary,
    SaveCheckpoints,
    TrainingProgress,
)
from datamodules.activations import ActivationDataModule
from datamodules.streamed_activations import StreamedActivationDataModule
from datamodules.synthetic import Constant, Exponential, HalfNormal, LogNormal
from datamodules.synthetic_activations import SyntheticActivations
from datamodules.text import HeldOut, HuggingFaceDataset, Mixture, Shuffled, StandardLibrary, TextFiles
from datamodules.text_contexts import TextContexts
from lightning_modules.activation_extraction import ActivationExtraction
from lightning_modules.autoencoders import (
    AbsTopK,
    BatchTopK,
    DatasetScale,
    Gated,
    JumpReLU,
    LayerNormalization,
    NoNormalization,
    ReLU,
    TopK,
)
from lightning_modules.schedules import WarmupDecay
from lightning_modules.sparse_autoencoding import SparseAutoencoding

__all__ = [
    "AbsTopK",
    "ActivationDataModule",
    "ActivationExtraction",
    "ActivationWriter",
    "BatchTopK",
    "CheckpointRetention",
    "Constant",
    "DatasetScale",
    "DictionaryRecovery",
    "Exponential",
    "ExtractionProgress",
    "Extractor",
    "FeatureStatistics",
    "Gated",
    "HalfNormal",
    "HeldOut",
    "HuggingFaceDataset",
    "JointExtractor",
    "JumpReLU",
    "LayerNormalization",
    "LogNormal",
    "Mixture",
    "NoNormalization",
    "ReLU",
    "RunSummary",
    "SaveCheckpoints",
    "Shuffled",
    "SparseAutoencoding",
    "StandardLibrary",
    "StreamedActivationDataModule",
    "SyntheticActivations",
    "TextContexts",
    "TextFiles",
    "TopK",
    "TrainingProgress",
    "WarmupDecay",
]
