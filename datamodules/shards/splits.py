"""Which split a document is in, from its name alone."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

Split = Literal["train", "validation", "test"]


def split_of(document: str, seed: int, validation_share: float, test_share: float) -> Split:
    """The split of a document; no other document has a say in it, so a larger corpus moves none across."""
    digest = hashlib.blake2b(f"{seed} {document}".encode(), digest_size=8).digest()
    place = int.from_bytes(digest, "little") / 2**64
    if place < validation_share:
        return "validation"
    return "test" if place < validation_share + test_share else "train"


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
