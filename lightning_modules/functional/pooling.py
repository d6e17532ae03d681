"""From the hidden states of a context to one vector. Shapes: hidden [batch, length, d]; real bool [batch, length]."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Pooling = Literal["mean", "cls", "last_token"]


def pooled(hidden: Tensor, real: Tensor, pooling: Pooling) -> Tensor:
    """One vector a context, [batch, d], of the tokens that are no padding: their mean, the first or the last of them.

    Args:
        hidden: any floating dtype; what comes back is float32.
        real: every context has at least one real token, and padding behind them.
        pooling: what the model was trained with; sentence-transformers calls it the pooling mode.
    """
    hidden = hidden.float()
    if pooling == "cls":
        return hidden[:, 0]
    lengths = real.sum(dim=1)
    if pooling == "last_token":
        return hidden[torch.arange(len(hidden), device=hidden.device), lengths - 1]
    return (hidden * real.unsqueeze(2)).sum(dim=1) / lengths.unsqueeze(1)
