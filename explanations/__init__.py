"""What latents say of an embedding model."""

from explanations.latent_reader import LatentReader
from explanations.opening import open_reader, side_named
from explanations.text_latents import TextLatents, active

__all__ = ["LatentReader", "TextLatents", "active", "open_reader", "side_named"]
