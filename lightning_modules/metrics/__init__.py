from lightning_modules.metrics.absorption import Absorption
from lightning_modules.metrics.embedding_geometry import EmbeddingGeometry
from lightning_modules.metrics.firing import DENSE_ABOVE, FiringDensity, MeanL1, log_density, summarize_density
from lightning_modules.metrics.latent_levels import MeanLatents
from lightning_modules.metrics.reconstruction import ReconstructionScores
from lightning_modules.metrics.retrieval import QueryScores, Retrieval
from lightning_modules.metrics.splicing import SplicedEmbedding, SplicedLanguageModel, Way
from lightning_modules.metrics.triplets import TripletScores

__all__ = [
    "DENSE_ABOVE",
    "Absorption",
    "EmbeddingGeometry",
    "FiringDensity",
    "MeanL1",
    "MeanLatents",
    "QueryScores",
    "ReconstructionScores",
    "Retrieval",
    "SplicedEmbedding",
    "SplicedLanguageModel",
    "TripletScores",
    "Way",
    "log_density",
    "summarize_density",
]
