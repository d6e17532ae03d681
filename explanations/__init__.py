"""What latents say of an embedding model."""

from explanations.token_states import ReadTexts, StateReader, single_state
from explanations.watched_texts import Look, TextWatch, mean_cosine, texts_sha256

__all__ = [
    "Look",
    "ReadTexts",
    "StateReader",
    "TextWatch",
    "mean_cosine",
    "single_state",
    "texts_sha256",
]
