from lightning_modules.autoencoders.base import Autoencoder, LossTerm, TrainingPass, WholeBatch
from lightning_modules.autoencoders.normalization import (
    DatasetScale,
    LayerNormalization,
    NoNormalization,
    Normalization,
    Normalized,
)
from lightning_modules.autoencoders.relu import ReLU
from lightning_modules.autoencoders.topk import TopK

__all__ = [
    "Autoencoder",
    "DatasetScale",
    "LayerNormalization",
    "LossTerm",
    "NoNormalization",
    "Normalization",
    "Normalized",
    "ReLU",
    "TopK",
    "TrainingPass",
    "WholeBatch",
]
