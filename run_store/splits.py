"""Which split a document is in, from its name alone."""

from __future__ import annotations

import hashlib
from typing import Literal

Split = Literal["train", "validation", "test"]


def split_of(document: str, seed: int, validation_share: float, test_share: float) -> Split:
    """The split of a document; no other document has a say in it, so a larger corpus moves none across."""
    digest = hashlib.blake2b(f"{seed} {document}".encode(), digest_size=8).digest()
    place = int.from_bytes(digest, "little") / 2**64
    if place < validation_share:
        return "validation"
    return "test" if place < validation_share + test_share else "train"
