"""Numbers that look random and follow from what they are about alone, so that a sample is the same however the rows
come in batches and in whatever order.
"""

from __future__ import annotations

from torch import Tensor

_BITS = 24
# odd, and without a pattern in their bits
_ROWS, _LATENTS, _MIX = 0x2545F4914F6CDD1D, 0x369DEA0F31A53F85, 0x1B873593CC9E2D51


def uniform(rows: Tensor, latents: Tensor | None = None) -> Tensor:
    """float32 in [0, 1), with 24 bits, for each row's number, or each pair of a row's and a latent's; int64, any
    one shape.
    """
    mixed = rows * _ROWS + _MIX
    if latents is not None:
        mixed = mixed + latents * _LATENTS
    for shift in (32, 29):
        # the shift keeps the sign, which the mask takes away
        mixed = (mixed ^ ((mixed >> shift) & ((1 << (64 - shift)) - 1))) * _MIX
    return ((mixed >> (64 - _BITS)) & ((1 << _BITS) - 1)).float() / (1 << _BITS)
