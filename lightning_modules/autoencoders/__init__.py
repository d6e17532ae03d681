from lightning_modules.autoencoders.abs_topk import AbsTopK
from lightning_modules.autoencoders.base import Autoencoder, LossTerm, TrainingPass, WholeBatch
from lightning_modules.autoencoders.batch_topk import BatchTopK
from lightning_modules.autoencoders.gated import Gated
from lightning_modules.autoencoders.jump_relu import JumpReLU
from lightning_modules.autoencoders.normalization import (
    DatasetScale,
    LayerNormalization,
    NoNormalization,
    Normalization,
    Normalized,
)
from lightning_modules.autoencoders.relu import ReLU
from lightning_modules.autoencoders.topk import TopK
from lightning_modules.autoencoders.wiring import Autoencoding, Revival, Sides, Wiring

__all__ = [
    "AbsTopK",
    "Autoencoder",
    "Autoencoding",
    "BatchTopK",
    "DatasetScale",
    "Gated",
    "JumpReLU",
    "LayerNormalization",
    "LossTerm",
    "NoNormalization",
    "Normalization",
    "Normalized",
    "ReLU",
    "Revival",
    "Sides",
    "TopK",
    "TrainingPass",
    "WholeBatch",
    "Wiring",
]
