"""What latents say of an embedding model."""

from explanations.fidelity import Retrieved, compare_indices, fidelity
from explanations.gain import Gain
from explanations.labelling import labels_from_store, labels_from_texts
from explanations.latent_groups import GROUPS
from explanations.latent_reader import LatentReader
from explanations.model_difference import DifferenceSettings, ModelDifference, compare_models
from explanations.nearby import nearby_labels
from explanations.opening import open_reader, side_named
from explanations.pooled_latents import PooledLatents, PooledReader
from explanations.ranking import ExplainedRanking
from explanations.refitting import refitted
from explanations.sparse_index import SparseIndex, SparseVectors, Weighting, latent_sets, latent_weights, sparse_vectors
from explanations.text_latents import TextLatents, active
from explanations.token_states import ReadTexts, StateReader, single_state
from explanations.told import Difference, Document, Explanation, Part, Text, difference, told
from explanations.watched_texts import Look, TextWatch, mean_cosine, texts_sha256

__all__ = [
    "GROUPS",
    "Difference",
    "DifferenceSettings",
    "Document",
    "ExplainedRanking",
    "Explanation",
    "Gain",
    "LatentReader",
    "Look",
    "ModelDifference",
    "Part",
    "PooledLatents",
    "PooledReader",
    "ReadTexts",
    "Retrieved",
    "SparseIndex",
    "SparseVectors",
    "StateReader",
    "Text",
    "TextLatents",
    "TextWatch",
    "Weighting",
    "active",
    "compare_indices",
    "compare_models",
    "difference",
    "fidelity",
    "labels_from_store",
    "labels_from_texts",
    "latent_sets",
    "latent_weights",
    "mean_cosine",
    "nearby_labels",
    "open_reader",
    "refitted",
    "side_named",
    "single_state",
    "sparse_vectors",
    "texts_sha256",
    "told",
]
