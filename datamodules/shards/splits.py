"""The rows of every split."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

import torch
from torch import Tensor

from run_store import Split, split_of

__all__ = ["Split", "split_of", "split_ranges"]


def split_ranges(
    documents: Sequence[str], ranges: Tensor, seed: int, validation_share: float, test_share: float
) -> dict[Split, Tensor]:
    """The row ranges of every split's documents, in store order.

    Args:
        documents: names.
        ranges: int64 [documents, 2], see `ActivationStore.document_ranges`.
        seed: another seed holds other documents out.
        validation_share: expected share of the documents, 0 to 1.
        test_share: expected share of the documents, 0 to 1.

    Returns:
        int64 [n, 2] per split.
    """
    splits = [split_of(name, seed, validation_share, test_share) for name in documents]
    return {split: ranges[torch.tensor([other == split for other in splits])] for split in get_args(Split)}
