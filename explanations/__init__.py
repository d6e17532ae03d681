"""What latents say of an embedding model."""

from explanations.labelling import labels_from_store, labels_from_texts
from explanations.latent_reader import LatentReader
from explanations.opening import open_reader, side_named
from explanations.ranking import ExplainedRanking
from explanations.text_latents import TextLatents, active
from explanations.told import Difference, Document, Explanation, Part, Text, difference, told

__all__ = [
    "Difference",
    "Document",
    "ExplainedRanking",
    "Explanation",
    "LatentReader",
    "Part",
    "Text",
    "TextLatents",
    "active",
    "difference",
    "labels_from_store",
    "labels_from_texts",
    "open_reader",
    "side_named",
    "told",
]
