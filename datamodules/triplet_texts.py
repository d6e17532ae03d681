"""The texts of triplets themselves: what an embedding model is used for, for an autoencoder to be trained on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

from datamodules.contrastive_triplets import TripletDataModule
from datamodules.text import Corpus, Document
from datamodules.text.bad_rows import BadRows
from datamodules.triplets import Example
from datamodules.triplets.building import group_of
from datamodules.triplets.splits import split_of_group
from run_store import Split, UserError


class TripletTexts(Corpus):
    """The anchors, positives and negatives of one split of triplets, each different text once, as documents.

    An autoencoder that reads the split `train` has seen nothing of what the embedding model is measured on. Documents
    are named GROUP/N ROLE, N being the number of the example. Texts come without prompts.

    Args:
        triplets: what an embedding model is trained on; its seed and shares decide the split.
        part: train, validation or test.
    """

    def __init__(self, triplets: TripletDataModule, part: Split = "train") -> None:
        self.triplets = triplets
        self.part: Split = part

    def documents(self) -> Iterator[Document]:
        """Yields the texts in the order of the examples.

        Raises:
            UserError: a row is bad and those are refused, or the part has no example.
        """
        seen = set[bytes]()
        for number, example in examples_of(self.triplets, self.part):
            roles = [("anchor", example.anchor), ("positive", example.positive)]
            roles += [(f"negative {place}", text) for place, text in enumerate(example.negatives, 1)]
            for role, text in roles:
                digest = hashlib.blake2b(text.encode(), digest_size=16).digest()
                if digest not in seen:
                    seen.add(digest)
                    yield Document(f"{example.group or 'example'}/{number} {role}", text)

    def describe(self) -> dict[str, Any]:
        source = self.triplets.sources[self.part] or self.triplets.source
        return {
            "class": type(self).__name__,
            "source": source.describe(),
            "part": self.part,
            "seed": self.triplets.seed,
            "shares": dict(self.triplets.shares),
        }


def examples_of(triplets: TripletDataModule, part: Split) -> Iterator[tuple[int, Example]]:
    """The examples of a split as texts, each with its number in its source, from 0.

    Raises:
        UserError: a row is bad and those are refused, or the part has no example.
    """
    own = triplets.sources[part] if part != "train" else None
    source, shares = own or triplets.source, triplets.shares
    bad, found = BadRows(source.bad_rows, of="triplets"), False
    for number, example in enumerate(source.examples(bad)):
        if own is None and part != split_of_group(
            group_of(example), triplets.seed, shares["validation"], shares["test"]
        ):
            continue
        found = True
        yield number, example
    if not found:
        raise UserError(f"part: the triplets have no example in {part!r}: raise its share, or name a source for it")
