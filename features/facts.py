"""What follows from the statistics of a pass and the weights: labels, patterns, partners, neighbours, a map.

Shapes: s latents, d_out width of the reconstruction.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from features.collector import Features
from features.firings import Firings
from features.geometry import layout, nearest
from features.labels import Label, automatic_labels
from features.partners import CoFiring, co_firing
from features.patterns import Kind, Patterns, typical_patterns
from features.token_latents import TokenLatents, token_latents

FIRINGS_LOOKED_AT = 512
"""Of each latent, for patterns and partners: a share is then known to within 2 %, and the time does not depend on the
length of the pass."""


class Facts(NamedTuple):
    """Of s latents, the same order everywhere."""

    features: Features
    patterns: dict[Kind, Patterns]
    labels: list[Label]
    partners: CoFiring
    neighbours: Tensor
    """int64 [s, k] latents whose decoder rows point in nearly the same direction."""
    cosines: Tensor
    """[s, k]."""
    places: Tensor
    """[s, 2] on the map of decoder rows."""
    by_token: TokenLatents

    @classmethod
    def of(cls, features: Features, W_dec: Tensor, count: int = 12) -> Facts:
        """Of W_dec [s, d_out]; `count` is how many there are of each list."""
        d_sae = len(features.counts)
        firings = Firings.of(features.sample, d_sae, FIRINGS_LOOKED_AT)
        patterns = typical_patterns(features.sample, firings, count)
        neighbours, cosines = nearest(W_dec, count)
        return cls(
            features,
            patterns,
            automatic_labels(patterns),
            co_firing(features.sample, firings, count),
            neighbours,
            cosines,
            layout(W_dec),
            token_latents(features.sample, d_sae, count),
        )
