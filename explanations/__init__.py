"""What latents say of an embedding model."""

from explanations.difference import Difference, DifferenceSettings, find_difference
from explanations.gain import Gain
from explanations.latent_groups import GROUPS
from explanations.latent_reader import LatentReader
from explanations.opening import open_reader, side_named
from explanations.text_latents import TextLatents, active

__all__ = [
    "GROUPS",
    "Difference",
    "DifferenceSettings",
    "Gain",
    "LatentReader",
    "TextLatents",
    "active",
    "find_difference",
    "open_reader",
    "side_named",
]
