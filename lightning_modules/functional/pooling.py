"""From the hidden states of a context to one vector. Shapes: hidden [batch, length, d]; real bool [batch, length]."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Pooling = Literal["mean", "cls", "last_token", "max", "weighted_mean"]


def pooled(hidden: Tensor, real: Tensor, pooling: Pooling) -> Tensor:
    """One vector a context, [batch, d], of the tokens that are no padding: their mean, the first or the last of them,
    the largest value in each dimension, or the mean with weights 1, 2, 3… that favours later tokens.

    Args:
        hidden: any floating dtype; what comes back is float32, or float64 where it is that.
        real: every context has at least one real token, and padding behind them.
        pooling: what the model was trained with; sentence-transformers calls it the pooling mode.
    """
    if hidden.dtype != torch.float64:
        hidden = hidden.float()
    if pooling == "cls":
        return hidden[:, 0]
    if pooling == "max":
        return hidden.masked_fill(~real.unsqueeze(2), -torch.inf).amax(dim=1)
    lengths = real.sum(dim=1)
    if pooling == "last_token":
        # a graph that is made of this would take len() for a constant
        return hidden[torch.arange(hidden.shape[0], device=hidden.device), lengths - 1]
    weights = real * torch.arange(1, real.shape[1] + 1, device=real.device) if pooling == "weighted_mean" else real
    # Padding is cut off before it is weighed: what stands there may be infinite, and 0 · ∞ is no number.
    hidden = hidden.masked_fill(~real.unsqueeze(2), 0)
    return (hidden * weights.unsqueeze(2)).sum(dim=1) / weights.sum(dim=1, keepdim=True)


def pooling_weights(real: Tensor, pooling: Pooling) -> Tensor:
    """Weights [batch, length] float64, each context's summing to 1, with which `pooled` adds up hidden states; 0 on
    padding.

    Args:
        real: as in `pooled`.
        pooling: all but `max`, which adds nothing up.
    """
    if pooling == "max":
        raise ValueError("max pooling is no weighted sum")
    if pooling in ("cls", "last_token"):
        last = real.sum(dim=1) - 1
        place = torch.zeros_like(last) if pooling == "cls" else last
        return torch.zeros(real.shape, dtype=torch.float64, device=real.device).scatter_(1, place.unsqueeze(1), 1.0)
    weights = real.double()
    if pooling == "weighted_mean":
        weights = weights * torch.arange(1, real.shape[1] + 1, device=real.device)
    return weights / weights.sum(dim=1, keepdim=True)
