"""Whole batches out of a store, as plain iterables for the Trainer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol

from torch import Tensor

from run_store import UserError


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
class Rank:
    """One process among those that share every batch."""

    rank: int = 0
    world_size: int = 1

    def share(self, start: int, stop: int) -> tuple[int, int]:
        """This rank's contiguous part of start … stop - 1: the parts are disjoint, complete and even to within one."""
        rows = stop - start
        return start + rows * self.rank // self.world_size, start + rows * (self.rank + 1) // self.world_size


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
    rank: Rank = Rank()

    def __len__(self) -> int:
        return -(-self.shuffle.size // self.batch_size)

    def __iter__(self) -> Iterator[ActivationBatch]:
        batches = len(self)
        for batch in range(batches):
            start, stop = self.rank.share(*Rank(batch, batches).share(0, self.shuffle.size))
            yield read_batch(self.store, self.hook_points, self.shuffle.rows(0, start, stop))


@dataclass(eq=False)
class TrainingLoader:
    """The batches of one epoch after another, from a cursor (epoch, batch) that is all the state there is.

    Every batch has `batch_size` rows over all ranks; what is left at the end of an epoch is not read in that epoch.
    Lightning sets the epoch, saves the cursor with a checkpoint and restores it. An iteration goes on at the cursor.

    Raises:
        UserError: the split has fewer rows than a batch, or the ranks cannot share a batch evenly.
    """

    # Lightning asks for this wherever it finds a sampler.
    batch_sampler: ClassVar[None] = None

    store: RowReader
    shuffle: RowOrder
    hook_points: Sequence[str]
    batch_size: int
    rank: Rank = Rank()
    epoch: int = 0
    batch: int = 0

    def __post_init__(self) -> None:
        if self.batch_size % self.rank.world_size:
            raise UserError(
                f"batch_size {self.batch_size} cannot be shared evenly by {self.rank.world_size} devices: "
                "make it a multiple of their number"
            )
        if self.batch_size > self.shuffle.size:
            raise UserError(
                f"batch_size {self.batch_size} is more than the {self.shuffle.size} rows of the training split: make "
                "it smaller or extract more text"
            )

    def __len__(self) -> int:
        return self.shuffle.size // self.batch_size

    def __iter__(self) -> Iterator[ActivationBatch]:
        while self.batch < len(self):
            start = self.batch * self.batch_size
            rows = self.shuffle.rows(self.epoch, *self.rank.share(start, start + self.batch_size))
            # The cursor moves before the batch is handed out: a checkpoint taken after the step names the next batch.
            self.batch += 1
            yield read_batch(self.store, self.hook_points, rows)
        self.batch = 0

    @property
    def sampler(self) -> TrainingLoader:
        """Where Lightning looks for `set_epoch`."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Starts `epoch`, unless the cursor stands in it already, as it does after a resume in its middle."""
        if epoch != self.epoch:
            self.epoch, self.batch = epoch, 0

    def state_dict(self) -> dict[str, Any]:
        """The cursor, and what gives it its meaning."""
        return {"epoch": self.epoch, "batch": self.batch, **self._order()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Puts the cursor where it was.

        Raises:
            UserError: the order of rows was another, so that the cursor would mean other rows.
        """
        for name, value in self._order().items():
            if state[name] != value:
                raise UserError(
                    f"the checkpoint was made with {name} {state[name]} and this run has {value}, which changes the "
                    f"order of the rows: set {name} back to {state[name]} or start a new run"
                )
        self.epoch, self.batch = state["epoch"], state["batch"]

    def _order(self) -> dict[str, int]:
        shuffle = self.shuffle
        order = {
            "batch_size": self.batch_size,
            "block_rows": shuffle.block_rows,
            "seed": shuffle.seed,
            "rows": shuffle.size,
        }
        # the command line gives subclasses of int, which a checkpoint that loads with weights_only=True cannot hold
        return {name: int(value) for name, value in order.items()}
