"""A short text with the activations of its tokens."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class TextRows(NamedTuple):
    """n rows of one text, in its order. Tokens that give no row, such as special ones, are not among them."""

    text: str
    """As a person reads it."""
    tokens: tuple[str, ...]
    """n pieces of text, what each token adds to those before it."""
    ids: Tensor
    """int64 [n] token ids."""
    activations: tuple[Tensor, ...]
    """[n, d] of each hook point, float32, on the CPU."""
