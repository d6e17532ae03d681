from lightning_modules.autoencoders.abs_topk import AbsTopK
from lightning_modules.autoencoders.base import Autoencoder
from lightning_modules.autoencoders.batch_topk import BatchTopK
from lightning_modules.autoencoders.cross_layer_transcoder import CrossLayerTranscoder
from lightning_modules.autoencoders.crosscoder import Crosscoder
from lightning_modules.autoencoders.gated import Gated
from lightning_modules.autoencoders.hierarchical_topk import HierarchicalTopK
from lightning_modules.autoencoders.inference import (
    Activation,
    Gate,
    LargestMagnitudes,
    LargestValues,
    Pursuit,
    Rectifier,
    Thresholds,
)
from lightning_modules.autoencoders.jump_relu import JumpReLU
from lightning_modules.autoencoders.matching_pursuit import MatchingPursuit
from lightning_modules.autoencoders.matryoshka_batch_topk import MatryoshkaBatchTopK
from lightning_modules.autoencoders.normalization import (
    DatasetScale,
    LayerNormalization,
    NoNormalization,
    Normalization,
    Normalized,
)
from lightning_modules.autoencoders.over_ranks import whole_of_ranks
from lightning_modules.autoencoders.p_anneal import PAnneal
from lightning_modules.autoencoders.relu import ReLU
from lightning_modules.autoencoders.sharding import refuse_unshardable
from lightning_modules.autoencoders.skip import Skip
from lightning_modules.autoencoders.terms import LossTerm, TrainingPass, Whole, WholeBatch
from lightning_modules.autoencoders.topk import TopK
from lightning_modules.autoencoders.transcoder import Transcoder
from lightning_modules.autoencoders.wiring import Autoencoding, Revival, Sides, Wiring

__all__ = [
    "AbsTopK",
    "Activation",
    "Autoencoder",
    "Autoencoding",
    "BatchTopK",
    "CrossLayerTranscoder",
    "Crosscoder",
    "DatasetScale",
    "Gate",
    "Gated",
    "HierarchicalTopK",
    "JumpReLU",
    "LargestMagnitudes",
    "LargestValues",
    "LayerNormalization",
    "LossTerm",
    "MatchingPursuit",
    "MatryoshkaBatchTopK",
    "NoNormalization",
    "Normalization",
    "Normalized",
    "PAnneal",
    "Pursuit",
    "ReLU",
    "Rectifier",
    "Revival",
    "Sides",
    "Skip",
    "Thresholds",
    "TopK",
    "TrainingPass",
    "Transcoder",
    "Whole",
    "WholeBatch",
    "Wiring",
    "refuse_unshardable",
    "whole_of_ranks",
]
