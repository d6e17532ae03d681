"""Whole batches out of a store, as plain iterables for the Trainer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from torch import Tensor

from datamodules.shards.cursor import ALONE, CursorLoader, Rank


class RowReader(Protocol):
    """What a loader asks of its rows: an `ActivationStore`, or rows that are made as they are read."""

    def read(self, rows: Tensor, hook_points: Sequence[str]) -> tuple[Tensor, ...]:
        """float32 [n, d] per hook point, of rows int64 [n]."""
        ...


class RowOrder(Protocol):
    """What a loader asks of an order of rows, such as a `BlockShuffle`."""

    @property
    def size(self) -> int:
        """Rows of an epoch."""
        ...

    @property
    def block_rows(self) -> int:
        """Rows that stay together."""
        ...

    @property
    def seed(self) -> int:
        """What the order depends on beside the epoch."""
        ...

    def rows(self, epoch: int, start: int, stop: int) -> Tensor:
        """int64 [stop - start]: the rows at places `start` to `stop` - 1 of an epoch."""
        ...


class ActivationBatch(NamedTuple):
    """Rows of a store, aligned over hook points."""

    activations: tuple[Tensor, ...]
    """float32 [batch, d] per hook point."""
    rows: Tensor
    """int64 [batch], each row's number in the store."""


def read_batch(store: RowReader, hook_points: Sequence[str], rows: Tensor) -> ActivationBatch:
    """The batch of some rows, int64 [batch]."""
    return ActivationBatch(store.read(rows, hook_points), rows)


@dataclass(frozen=True)
class EvaluationLoader:
    """Every row of a split once, in an order that never changes, so that the first few batches are a fair sample.

    The batches are as many as it takes to hold at most `batch_size` rows over all ranks each, and even in size: a small
    last one would leave ranks without rows.
    """

    store: RowReader
    shuffle: RowOrder
    hook_points: Sequence[str]
    batch_size: int
    rank: Rank = ALONE

    def __len__(self) -> int:
        return -(-self.shuffle.size // self.batch_size)

    def __iter__(self) -> Iterator[ActivationBatch]:
        batches = len(self)
        for batch in range(batches):
            start, stop = self.rank.share(*Rank(batch, batches).share(0, self.shuffle.size))
            yield read_batch(self.store, self.hook_points, self.shuffle.rows(0, start, stop))


@dataclass(eq=False)
class TrainingLoader(CursorLoader[ActivationBatch]):
    """Batches of a store's rows, or of rows that are made as they are read.

    Raises:
        UserError: the split has fewer rows than a batch, or the ranks cannot share a batch evenly.
    """

    store: RowReader
    shuffle: RowOrder
    hook_points: Sequence[str]
    batch_size: int
    rank: Rank = ALONE
    epoch: int = 0
    batch: int = 0

    def __post_init__(self) -> None:
        self.refuse_impossible("rows", "extract more text")

    @property
    def size(self) -> int:
        return self.shuffle.size

    def read(self, start: int, stop: int) -> ActivationBatch:
        return read_batch(self.store, self.hook_points, self.shuffle.rows(self.epoch, start, stop))

    def order(self) -> dict[str, int]:
        shuffle = self.shuffle
        return {"block_rows": shuffle.block_rows, "seed": shuffle.seed, "rows": shuffle.size}
