"""What latents say of an embedding model."""

from explanations.gain import Gain
from explanations.labelling import labels_from_store, labels_from_texts
from explanations.latent_groups import GROUPS
from explanations.latent_reader import LatentReader
from explanations.model_difference import DifferenceSettings, ModelDifference, compare_models
from explanations.nearby import nearby_labels
from explanations.opening import open_reader, side_named
from explanations.ranking import ExplainedRanking
from explanations.refitting import refitted
from explanations.text_latents import TextLatents, active
from explanations.told import Difference, Document, Explanation, Part, Text, difference, told

__all__ = [
    "GROUPS",
    "Difference",
    "DifferenceSettings",
    "Document",
    "ExplainedRanking",
    "Explanation",
    "Gain",
    "LatentReader",
    "ModelDifference",
    "Part",
    "Text",
    "TextLatents",
    "active",
    "compare_models",
    "difference",
    "labels_from_store",
    "labels_from_texts",
    "nearby_labels",
    "open_reader",
    "refitted",
    "side_named",
    "told",
]
