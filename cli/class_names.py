"""Every class that a config may name without its package: jsonargparse finds a short `class_path: TopK` once it is
imported.
"""

from backbones import ConcatenatedEncoder, Extractor, JointExtractor, LoRA, TextEncoder
from callbacks import (
    ActivationWriter,
    CheckpointRetention,
    CollapseAlarm,
    DeadNeuronResampling,
    DictionaryRecovery,
    DifferenceReport,
    EmbeddingProjector,
    EmbeddingSummary,
    ExtractionProgress,
    FeatureStatistics,
    ForgettingAlarm,
    LatentGuide,
    RunSummary,
    SamplePredictions,
    SaveCheckpoints,
    SplicedEvaluation,
    TrainingProgress,
    TripletPreview,
)
from datamodules.activations import ActivationDataModule
from datamodules.contrastive_triplets import TripletDataModule
from datamodules.streamed_activations import StreamedActivationDataModule
from datamodules.synthetic import Constant, Exponential, HalfNormal, LogNormal
from datamodules.synthetic_activations import SyntheticActivations
from datamodules.text import (
    HeldOut,
    HuggingFaceDataset,
    LanguageReference,
    Mixture,
    Shuffled,
    StandardLibrary,
    TextFiles,
)
from datamodules.text_contexts import TextContexts
from datamodules.triplet_texts import TripletTexts
from datamodules.triplets import CodeSearchTriplets, TripletDataset, TripletFiles
from lightning_modules.activation_extraction import ActivationExtraction
from lightning_modules.autoencoders import (
    AbsTopK,
    BatchTopK,
    Crosscoder,
    CrossLayerTranscoder,
    DatasetScale,
    Gated,
    HierarchicalTopK,
    JumpReLU,
    LayerNormalization,
    MatchingPursuit,
    MatryoshkaBatchTopK,
    NoNormalization,
    PAnneal,
    ReLU,
    Skip,
    TopK,
    Transcoder,
)
from lightning_modules.contrastive_embedding import ContrastiveEmbedding
from lightning_modules.functional import Binary, Cosine, Int8
from lightning_modules.losses import AnglE, CoSENT, InfoNCE, MarginMSE, Matryoshka, Triplet
from lightning_modules.schedules import WarmupDecay
from lightning_modules.sharding import LatentParallel
from lightning_modules.sparse_autoencoding import SparseAutoencoding
from tracking import MLflowTracker, RunCSVLogger, WandbTracker

__all__ = [
    "AbsTopK",
    "ActivationDataModule",
    "ActivationExtraction",
    "ActivationWriter",
    "AnglE",
    "BatchTopK",
    "Binary",
    "CheckpointRetention",
    "CoSENT",
    "CodeSearchTriplets",
    "CollapseAlarm",
    "ConcatenatedEncoder",
    "Constant",
    "ContrastiveEmbedding",
    "Cosine",
    "CrossLayerTranscoder",
    "Crosscoder",
    "DatasetScale",
    "DeadNeuronResampling",
    "DictionaryRecovery",
    "DifferenceReport",
    "EmbeddingProjector",
    "EmbeddingSummary",
    "Exponential",
    "ExtractionProgress",
    "Extractor",
    "FeatureStatistics",
    "ForgettingAlarm",
    "Gated",
    "HalfNormal",
    "HeldOut",
    "HierarchicalTopK",
    "HuggingFaceDataset",
    "InfoNCE",
    "Int8",
    "JointExtractor",
    "JumpReLU",
    "LanguageReference",
    "LatentGuide",
    "LatentParallel",
    "LayerNormalization",
    "LoRA",
    "LogNormal",
    "MLflowTracker",
    "MarginMSE",
    "MatchingPursuit",
    "Matryoshka",
    "MatryoshkaBatchTopK",
    "Mixture",
    "NoNormalization",
    "PAnneal",
    "ReLU",
    "RunCSVLogger",
    "RunSummary",
    "SamplePredictions",
    "SaveCheckpoints",
    "Shuffled",
    "Skip",
    "SparseAutoencoding",
    "SplicedEvaluation",
    "StandardLibrary",
    "StreamedActivationDataModule",
    "SyntheticActivations",
    "TextContexts",
    "TextEncoder",
    "TextFiles",
    "TopK",
    "TrainingProgress",
    "Transcoder",
    "Triplet",
    "TripletDataModule",
    "TripletDataset",
    "TripletFiles",
    "TripletPreview",
    "TripletTexts",
    "WandbTracker",
    "WarmupDecay",
]
