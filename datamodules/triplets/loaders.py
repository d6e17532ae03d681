"""Batches of triplets, as plain iterables for the Trainer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from datamodules.shards.cursor import ALONE, CursorLoader, Rank
from datamodules.shards.permutation import images_of
from datamodules.triplets.batch import TripletBatch

MakeBatch = Callable[[Tensor], TripletBatch]


@dataclass(eq=False)
class TripletLoader(CursorLoader[TripletBatch]):
    """Batches of examples in an order that seed and epoch decide.

    Args:
        make: The batch of some examples, int64 [b] numbers.
        rows: int64 [examples] numbers of those that are trained on.
        batch_size: Examples of a batch over all ranks.
        seed: Decides the order.
        begin: Called with the epoch before its first batch is read, and where an epoch is gone on with.

    Raises:
        UserError: there are fewer examples than a batch has, or the ranks cannot share a batch evenly.
    """

    make: MakeBatch
    rows: Tensor
    batch_size: int
    seed: int
    begin: Callable[[int], None]
    rank: Rank = ALONE
    epoch: int = 0
    batch: int = 0

    def __post_init__(self) -> None:
        self.refuse_impossible("examples", "add examples")

    def __iter__(self) -> Iterator[TripletBatch]:
        self.begin(self.epoch)
        yield from super().__iter__()

    @property
    def size(self) -> int:
        return len(self.rows)

    def read(self, start: int, stop: int) -> TripletBatch:
        return self.make(self.rows[self.places(self.epoch, start, stop)])

    def places(self, epoch: int, start: int, stop: int) -> Tensor:
        """int64 [stop - start]: which of the rows come at these places of an epoch."""
        return torch.from_numpy(images_of(self.size, f"triplets {self.seed} {epoch}", start, stop))

    def order(self) -> dict[str, int]:
        return {"seed": self.seed, "examples": self.size}


@dataclass(frozen=True)
class OrderedTriplets:
    """Every example of a split once, in the data's order.

    The batches are as many as it takes to hold at most `batch_size` examples over all ranks each, and even in size.
    """

    make: MakeBatch
    rows: Tensor
    batch_size: int
    rank: Rank = ALONE

    def __len__(self) -> int:
        return -(-len(self.rows) // self.batch_size)

    def __iter__(self) -> Iterator[TripletBatch]:
        batches = len(self)
        for batch in range(batches):
            start, stop = self.rank.share(*Rank(batch, batches).share(0, len(self.rows)))
            yield self.make(self.rows[start:stop])
