"""Loaders of whole training batches whose only state is a cursor."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

from run_store import UserError

Batch = TypeVar("Batch")


@dataclass(frozen=True)
class Rank:
    """One process among those that share every batch."""

    rank: int = 0
    world_size: int = 1

    def share(self, start: int, stop: int) -> tuple[int, int]:
        """This rank's contiguous part of start … stop - 1: the parts are disjoint, complete and even to within one."""
        rows = stop - start
        return start + rows * self.rank // self.world_size, start + rows * (self.rank + 1) // self.world_size


ALONE = Rank()


class CursorLoader(ABC, Generic[Batch]):
    """The batches of one epoch after another, from a cursor (epoch, batch) that is all the state there is.

    Every batch has `batch_size` members over all ranks; what is left at the end of an epoch is not read in that epoch.
    Lightning sets the epoch, saves the cursor with a checkpoint and restores it. An iteration goes on at the cursor.
    """

    # Lightning asks for this wherever it finds a sampler.
    batch_sampler: ClassVar[None] = None

    batch_size: int
    rank: Rank
    epoch: int
    batch: int

    @property
    @abstractmethod
    def size(self) -> int:
        """Members of an epoch."""

    @abstractmethod
    def read(self, start: int, stop: int) -> Batch:
        """The members at places `start` to `stop` - 1 of the epoch."""

    @abstractmethod
    def order(self) -> dict[str, int]:
        """What decides the order of the members, beside the size of a batch: each setting by its name."""

    def __len__(self) -> int:
        return self.size // self.batch_size

    def __iter__(self) -> Iterator[Batch]:
        while self.batch < len(self):
            start = self.batch * self.batch_size
            place = self.rank.share(start, start + self.batch_size)
            # The cursor moves before the batch is handed out: a checkpoint taken after the step names the next batch.
            self.batch += 1
            yield self.read(*place)
        self.batch = 0

    @property
    def sampler(self) -> CursorLoader[Batch]:
        """Where Lightning looks for `set_epoch`."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Starts `epoch`, unless the cursor stands in it already, as it does after a resume in its middle."""
        if epoch != self.epoch:
            self.epoch, self.batch = epoch, 0

    def state_dict(self) -> dict[str, Any]:
        """The cursor, and what gives it its meaning."""
        return {"epoch": self.epoch, "batch": self.batch, **self._meaning()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Puts the cursor where it was.

        Raises:
            UserError: the order of the members was another, so that the cursor would mean others.
        """
        for name, value in self._meaning().items():
            if state[name] != value:
                raise UserError(
                    f"the checkpoint was made with {name} {state[name]} and this run has {value}, which changes the "
                    f"order of the rows: set {name} back to {state[name]} or start a new run"
                )
        self.epoch, self.batch = state["epoch"], state["batch"]

    def refuse_impossible(self, members: str, remedy: str) -> None:
        """Raises what would otherwise come up in the middle of a run.

        Args:
            members: what a batch is made of, for messages.
            remedy: how to have more of them.

        Raises:
            UserError: there are fewer members than a batch has, or the ranks cannot share a batch evenly.
        """
        if self.batch_size % self.rank.world_size:
            raise UserError(
                f"batch_size {self.batch_size} cannot be shared evenly by {self.rank.world_size} devices: "
                "make it a multiple of their number"
            )
        if self.batch_size > self.size:
            raise UserError(
                f"batch_size {self.batch_size} is more than the {self.size} {members} of the training split: make "
                f"it smaller or {remedy}"
            )

    def _meaning(self) -> dict[str, int]:
        # the command line gives subclasses of int, which a checkpoint that loads with weights_only=True cannot hold
        return {name: int(value) for name, value in {"batch_size": self.batch_size, **self.order()}.items()}
