"""Cosines that have a gradient wherever one can be given, and what is known of pairs of texts.

Shapes: b rows, d width, w columns.
"""

from __future__ import annotations

import torch
from torch import Tensor


def widened(x: Tensor) -> Tensor:
    """In float32 at least; float64 stays."""
    return x if x.dtype == torch.float64 else x.float()


def unit(x: Tensor) -> Tensor:
    """x / ‖x‖ over the last dimension, in x's dtype.

    A zero vector, or one whose entries are below the smallest normal number, has no direction: it stays zero, with no
    gradient. Anything longer is scaled by its largest entry first, so that squares neither vanish nor overflow; the
    scale is a constant to the gradient, which is that of x / ‖x‖ all the same, since scaling does not change it.
    """
    largest = x.detach().abs().amax(dim=-1, keepdim=True)
    scaled = x / largest.masked_fill(largest < torch.finfo(x.dtype).tiny, torch.inf)
    squares = scaled.square().sum(dim=-1, keepdim=True)
    return scaled * squares.masked_fill(squares == 0, 1).rsqrt()


def first_occurrences(keys: Tensor) -> tuple[Tensor, Tensor]:
    """Where each different key stands first, and which of these each key is: [n] int64 → [k] int64, [n] int64 < k."""
    _, number = torch.unique(keys, return_inverse=True)
    count = int(number.max()) + 1 if len(number) else 0
    places = torch.arange(len(keys), device=keys.device)
    first = places.new_full((count,), len(keys)).scatter_reduce(0, number, places, "amin")
    return first, number


def occurring_with(keys: Tensor, values: Tensor, rows: Tensor, width: int) -> Tensor:
    """Which values occur together with a row's key, anywhere.

    The table that is made has one line for each different key of the rows, so it is never larger than the answer.

    Args:
        keys: [n] int64 ≥ 0.
        values: [n] int64 in 0 … width − 1, paired with the keys.
        rows: [b] int64 places in `keys`.

    Returns:
        [b, width] bool.
    """
    asked, line = torch.unique(keys[rows], return_inverse=True)
    table = torch.zeros(len(asked) + 1, width, dtype=torch.bool, device=keys.device)  # the last line is nobody's
    if len(asked):
        lines = torch.searchsorted(asked, keys).clamp_max(len(asked) - 1)
        lines = torch.where(asked[lines] == keys, lines, len(asked))
        table[lines, values] = True
    return table[line]
