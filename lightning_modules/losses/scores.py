"""What losses on scores ask of a batch. Shapes: b pairs of this rank, B of all."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lightning_modules.functional import gather_equal, gather_rows, ranks
from lightning_modules.losses.base import EmbeddedBatch
from run_store import UserError


def scores_of(batch: EmbeddedBatch, loss: nn.Module, teacher: bool) -> Tensor:
    """The scores of a batch: [b, 1 + n] of a teacher, else [b] of pairs.

    Raises:
        UserError: naming the loss; there are none, or of another kind.
    """
    kind = "a teacher's score for the positive and for each negative" if teacher else "one score for each pair"
    name = type(loss).__name__
    if batch.scores is None:
        raise UserError(f"{name} learns from scores ({kind}), and the data has none: give it a column of scores")
    rows, negatives = batch.negatives.shape
    if batch.scores.shape != ((rows, 1 + negatives) if teacher else (rows,)):
        found = "one score for each pair" if batch.scores.dim() == 1 else f"{batch.scores.shape[1]} for each example"
        raise UserError(f"{name} learns from scores ({kind}), and the data has {found}: give it those or another loss")
    return batch.scores


def of_all_ranks(similarities: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
    """The similarities [b] and scores [b] of the pairs of all ranks, [B] each. All ranks must ask, and whatever they
    compute of them must be the same on each: DDP's average is then its gradient.
    """
    if ranks() == 1:
        return similarities, scores
    counts = gather_equal(torch.tensor([len(scores)], device=scores.device)).flatten().tolist()
    return gather_rows(similarities, counts), gather_rows(scores, counts)
