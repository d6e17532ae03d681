"""What a contrastive training asks of its data."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

from torch import Tensor

from datamodules.triplets import RetrievalTask, TokenisedTexts, Tokeniser, TripletBatch, TripletReport, TripletTable
from datamodules.triplets.tokeniser import Column
from run_store import Split


class TripletData(Protocol):
    """A datamodule of triplets; none needs to descend from another."""

    batch_size: int
    """Examples of a batch, over all devices together."""

    def table(self, split: Split) -> TripletTable:
        """The examples that a split's are among."""

    def rows(self, split: Split) -> Tensor:
        """int64 [examples]: which of them a split has."""

    def retrieval(self, split: Split) -> RetrievalTask:
        """A split's anchors as queries for its positives."""

    def tokenisers(self) -> list[Tokeniser]:
        """What makes tokens of texts, one for each tokenisation of the model."""

    def tokenised(self, texts: Sequence[str], column: Column) -> tuple[TokenisedTexts, ...]:
        """Texts as those of a column are read, in each tokenisation."""

    def describe_example(self, split: Split, example: int) -> str:
        """The file and line of an example."""

    def mine_with(self, embed: Callable[[tuple[TokenisedTexts, ...]], Tensor]) -> None:
        """Says what embeds texts when hard negatives are mined."""

    def report(self, padded_tokens: Callable[[Sequence[Tensor]], int]) -> TripletReport:
        """What is known of the training examples."""

    def sample(self, batches: int) -> Iterable[TripletBatch]:
        """The first batches that this rank trains on."""

    def val_dataloader(self) -> Any:
        """Batches of the examples held out for validation; an empty list where there are none."""
