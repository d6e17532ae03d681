"""What latents say of an embedding model."""

from explanations.latent_reader import LatentReader
from explanations.opening import open_reader, side_named
from explanations.text_latents import TextLatents, active
from explanations.token_states import ReadTexts, StateReader, single_state
from explanations.watched_texts import Look, TextWatch, mean_cosine, texts_sha256

__all__ = [
    "LatentReader",
    "Look",
    "ReadTexts",
    "StateReader",
    "TextLatents",
    "TextWatch",
    "active",
    "mean_cosine",
    "open_reader",
    "side_named",
    "single_state",
    "texts_sha256",
]
