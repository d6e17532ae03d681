"""Rows of activations with where they come from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class CapturedRows(NamedTuple):
    """Activations of the tokens that count, on the CPU, in the order of the contexts and of the tokens in them."""

    activations: dict[str, Tensor]
    """One tensor [rows, d] a hook point, the same rows in each, in the dtype of the store."""
    tokens: Tensor
    """Token ids, int64 [rows]."""
    documents: Tensor
    """Document numbers, int64 [rows]."""
    positions: Tensor
    """Index of each token in its own document, int64 [rows]; -1 for special tokens."""


def in_order(parts: Sequence[CapturedRows], places: Sequence[Tensor]) -> CapturedRows:
    """Joins rows and sorts them by their places; rows of one place keep their order.

    Args:
        parts: Rows with the same hook points.
        places: For each part, int64 [rows].
    """
    if len(parts) == 1 and _never_falls(places[0]):
        return parts[0]
    joined = torch.cat(list(places))
    targets = None
    if not _never_falls(joined):
        targets = torch.empty_like(joined)
        targets[joined.argsort(stable=True)] = torch.arange(len(joined))
    activations = {name: _join([part.activations[name] for part in parts], targets) for name in parts[0].activations}
    tokens, documents, positions = (
        _join(columns, targets) for columns in zip(*(part[1:] for part in parts), strict=True)
    )
    return CapturedRows(activations, tokens, documents, positions)


def _never_falls(places: Tensor) -> bool:
    return bool((places[1:] >= places[:-1]).all())


def _join(columns: Sequence[Tensor], targets: Tensor | None) -> Tensor:
    """The columns one after the other, or each row at its target. Either way every row is copied once."""
    if targets is None:
        return torch.cat(list(columns))
    joined = columns[0].new_empty((len(targets), *columns[0].shape[1:]))
    first = 0
    for column in columns:
        joined[targets[first : first + len(column)]] = column
        first += len(column)
    return joined
