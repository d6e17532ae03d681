"""One part of a corpus, the same on every run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from jsonargparse.typing import ClosedUnitInterval

from datamodules.text.corpus import Corpus, Document
from run_store import Split, UserError, split_of


class HeldOut(Corpus):
    """The documents of a corpus that are in one of the three parts.

    The hash of its name alone decides which part a document is in: it stays there when documents are added, reordered
    or left out. `ActivationDataModule` splits a store in the same way, so the same seed and shares give the same parts
    there.

    Args:
        corpus: What to take the part of.
        part: train, validation or test.
        seed: Another seed holds other documents out.
        validation_share: The expected share of the documents in the part `validation`.
        test_share: The expected share of the documents in the part `test`.
    """

    def __init__(
        self,
        corpus: Corpus,
        part: Split = "train",
        seed: int = 0,
        validation_share: ClosedUnitInterval = 0.05,
        test_share: ClosedUnitInterval = 0.05,
    ) -> None:
        self.corpus = corpus
        self.part: Split = part
        self.seed = seed
        self.validation_share: float = validation_share
        self.test_share: float = test_share

    def documents(self) -> Iterator[Document]:
        """Yields the part's documents, in the corpus's order.

        Raises:
            UserError: the shares exceed the whole, no document is in the part, or what the corpus raises.
        """
        if self.validation_share + self.test_share > 1:
            raise UserError(
                f"validation_share {self.validation_share} and test_share {self.test_share} exceed 1: lower one"
            )
        read, found = 0, False
        for document in self.corpus.documents():
            read += 1
            if split_of(document.name, self.seed, self.validation_share, self.test_share) == self.part:
                found = True
                yield document
        if not found:
            raise UserError(
                f"part: none of the corpus's {read} documents is in {self.part!r}: raise its share, or add documents"
            )

    def describe(self) -> dict[str, Any]:
        return {
            "class": type(self).__name__,
            "corpus": self.corpus.describe(),
            "part": self.part,
            "seed": self.seed,
            "validation_share": self.validation_share,
            "test_share": self.test_share,
        }
