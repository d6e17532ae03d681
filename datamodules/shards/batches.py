"""Whole batches out of a store, as plain iterables for the Trainer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from torch import Tensor

from datamodules.shards.cursor import ALONE, CursorLoader, Rank


class RowReader(Protocol):
    """What a loader asks of its rows: an `ActivationStore`, or rows that are made as they are read."""

    def read(self, rows: Tensor, hook_points: Sequence[str]) -> tuple[Tensor, ...]:
        """float32 [n, d] per hook point, of rows int64 [n]."""
        ...


class Follower(Protocol):
    """What is told, before rows are read, where in an epoch they stand; it may fetch what comes next."""

    def at(self, epoch: int, start: int, stop: int) -> None:
        """The places `start` to `stop` - 1 of an epoch are read now, by all ranks together."""
        ...

    def at_rest(self) -> None:
        """Nothing is read for now; the next time it is from the beginning."""
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

    @property
    def mixed_shards(self) -> int:
        """Shards whose rows are mixed; 0 where all are."""
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
    follower: Follower | None = None

    def __len__(self) -> int:
        return -(-self.shuffle.size // self.batch_size)

    def __iter__(self) -> Iterator[ActivationBatch]:
        batches = len(self)
        try:
            for batch in range(batches):
                whole = Rank(batch, batches).share(0, self.shuffle.size)
                if self.follower is not None:
                    self.follower.at(0, *whole)
                rows = self.shuffle.rows(0, *self.rank.share(*whole))
                yield read_batch(self.store, self.hook_points, rows)
        finally:
            if self.follower is not None:
                self.follower.at_rest()


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
    follower: Follower | None = None

    def __post_init__(self) -> None:
        self.refuse_impossible("rows", "extract more text")

    @property
    def size(self) -> int:
        return self.shuffle.size

    def read(self, start: int, stop: int) -> ActivationBatch:
        if self.follower is not None:
            first = start // self.batch_size * self.batch_size
            self.follower.at(self.epoch, first, first + self.batch_size)
        return read_batch(self.store, self.hook_points, self.shuffle.rows(self.epoch, start, stop))

    def order(self) -> dict[str, int]:
        shuffle = self.shuffle
        settings = {"block_rows": shuffle.block_rows, "seed": shuffle.seed, "mixed_shards": shuffle.mixed_shards}
        return {**settings, "rows": shuffle.size}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        # a checkpoint of before knew no other order
        super().load_state_dict({"mixed_shards": 0, **state})
