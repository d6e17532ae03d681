"""Sums over pairs and rows in which some entries do not count. Shapes: b rows, n entries of a row."""

from __future__ import annotations

import torch
from torch import Tensor


def masked_row_means(values: Tensor, counts: Tensor) -> Tensor:
    """The mean of each row's entries that count, 0 where none does; whatever the others are, they have no gradient.

    Args:
        values: [b, n].
        counts: [b, n] bool.

    Returns:
        [b].
    """
    return torch.where(counts, values, 0).sum(dim=1) / counts.sum(dim=1).clamp_min(1)


def order_loss(similarities: Tensor, scores: Tensor, temperature: float) -> Tensor:
    """log(1 + Σ exp((s_i − s_j) / temperature)) over all i, j with score i < score j; 0 where no two scores differ.

    Args:
        similarities: s, [b].
        scores: [b]; a NaN is in no order with anything.

    Returns:
        Scalar.
    """
    differences = (similarities.unsqueeze(1) - similarities) / temperature
    ordered = differences[scores.unsqueeze(1) < scores]
    return torch.cat([ordered.new_zeros(1), ordered]).logsumexp(dim=0)
