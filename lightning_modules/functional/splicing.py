"""What a change inside a model does to its predictions."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import kl_div, nll_loss


class NextTokenSums(NamedTuple):
    """Sums over predicted tokens, in nats; scalars."""

    cross_entropy: Tensor
    divergence: Tensor
    """KL(clean ‖ other)."""
    tokens: Tensor
    """int64, how many were predicted."""


def next_token_sums(logits: Tensor, clean: Tensor, tokens: Tensor, counted: Tensor) -> NextTokenSums:
    """Cross-entropy of the next token, and how far the predictions are from those of the clean model.

    Args:
        logits: [batch, length, vocabulary]; those at t predict the token at t + 1.
        clean: [batch, length, vocabulary] of the clean model.
        tokens: int64 [batch, length].
        counted: bool [batch, length], tokens whose prediction counts; the first of a context has none.
    """
    counted = counted[:, 1:]
    sums = [torch.zeros((), dtype=torch.float64, device=logits.device) for _ in range(2)]
    # a context at a time, since the probabilities of a whole batch are as large as all that the model computes
    for here, there, ids, wanted in zip(logits[:, :-1], clean[:, :-1], tokens[:, 1:], counted, strict=True):
        predicted = here[wanted].float().log_softmax(dim=1)
        reference = there[wanted].float().log_softmax(dim=1)
        sums[0] += nll_loss(predicted, ids[wanted], reduction="sum")
        sums[1] += kl_div(predicted, reference, reduction="sum", log_target=True)
    return NextTokenSums(sums[0], sums[1], counted.sum())


def share_recovered(clean: Tensor, spliced: Tensor, ablated: Tensor) -> Tensor:
    """(ablated − spliced) / (ablated − clean): 1 where a measure is as good as the clean model's, 0 where it is no
    better than the ablated one's."""
    return (ablated - spliced) / (ablated - clean)
