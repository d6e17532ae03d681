from lightning_modules.metrics.absorption import Absorption
from lightning_modules.metrics.firing import DENSE_ABOVE, FiringDensity, MeanL1, log_density, summarize_density
from lightning_modules.metrics.reconstruction import ReconstructionScores
from lightning_modules.metrics.splicing import SplicedEmbedding, SplicedLanguageModel, Way

__all__ = [
    "DENSE_ABOVE",
    "Absorption",
    "FiringDensity",
    "MeanL1",
    "ReconstructionScores",
    "SplicedEmbedding",
    "SplicedLanguageModel",
    "Way",
    "log_density",
    "summarize_density",
]
