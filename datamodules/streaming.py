"""The batches of training straight from the model, as a plain iterable for the Trainer."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from datamodules.ahead import Ahead
from datamodules.lanes import Lanes
from datamodules.mixing import Agree, Cursor, Pools, mix
from datamodules.shards import ALONE, ActivationBatch, Rank, TrainingLoader, is_store
from datamodules.text_pools import TextPools
from run_store import UserError

RANKS = "the number of devices"
"""Among what decided the order where checkpoints were made before a cursor knew its lanes: each rank was one."""


@dataclass(eq=False)
class StreamingLoader:
    """Batches of an endless stream, pass after pass over the text, that the Trainer counts in epochs of equal length.

    How many rows a pass has is not known before it was made, but the Trainer and the schedules need the length of an
    epoch; so an epoch is `length` batches, wherever in a pass it begins and ends. An iteration goes on at the cursor,
    and an epoch where the one before has ended.

    A pass is made of as many lanes as there are processes where it begins. Whatever number goes on within it gives the
    same batches.

    Args:
        pools: Reads the text; each pass anew.
        length: Batches of an epoch.
        batch_size: Rows of a batch over all processes.
        seed: Decides the order of the rows, with the number of the pass.
        order: All settings that decide the order, under their names, as plain JSON values.
        fill: Folder of a store that the first pass fills; later passes read it, and the first one if it is there.
        stored: Makes a loader of a store's training rows.
        rank: Which part of a batch this process reads.
        agree: How processes tell each other numbers of the lanes that they mix.
        ahead: Whether a background thread makes the next pool while one is trained on. The batches are the same.
    """

    # Lightning asks for this wherever it finds a sampler.
    batch_sampler: ClassVar[None] = None

    pools: TextPools
    length: int
    batch_size: int
    seed: int
    order: dict[str, Any]
    fill: Path | None = None
    stored: Callable[[], TrainingLoader] | None = None
    rank: Rank = ALONE
    agree: Agree = lambda known: known
    ahead: bool = True
    epoch: int = 0
    batch: int = 0
    cursor: Cursor = field(default_factory=Cursor)
    first_stored: int | None = None
    """The first pass that reads the store."""
    _stream: Generator[tuple[ActivationBatch, Cursor]] | None = None
    _source: Ahead[Pools] | Generator[Pools] | None = None

    def __post_init__(self) -> None:
        if self.fill is not None:
            self.first_stored = 0 if is_store(self.fill) else 1
        if self.batch_size % self.rank.world_size:
            raise UserError(
                f"batch_size {self.batch_size} cannot be shared evenly by {self.rank.world_size} devices: "
                "make it a multiple of their number"
            )

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[ActivationBatch]:
        if self._stream is None:
            self._stream = self._passes()
        while self.batch < self.length:
            batch, cursor = next(self._stream)
            # The cursor moves before the batch is handed out: a checkpoint taken after the step names the next batch.
            self.batch, self.cursor = self.batch + 1, cursor
            yield batch
        self.batch = 0

    def close(self) -> None:
        """Ends the background thread and lets go of a store in the making, which keeps what can be gone on with."""
        self.pools.stopped.set()
        if self._source is not None:
            self._source.close()
        if self._stream is not None:
            self._stream.close()
        self._stream = self._source = None
        self.pools.stopped.clear()

    @property
    def sampler(self) -> StreamingLoader:
        """Where Lightning looks for `set_epoch`."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Starts `epoch`, unless the cursor stands in it already, as it does after a resume in its middle."""
        if epoch != self.epoch:
            self.epoch, self.batch = epoch, 0

    def state_dict(self) -> dict[str, Any]:
        """The cursor, and what gives it its meaning."""
        return {
            "epoch": self.epoch,
            "batch": self.batch,
            "cursor": self.cursor.plain(),
            "first_stored": self.first_stored,
            "order": self.order,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Puts the cursor where it was.

        Raises:
            UserError: the order of rows was another, so that the cursor would mean other rows.
        """
        for name, value in self.order.items():
            if (old := state["order"].get(name)) != value:
                raise UserError(
                    f"the checkpoint was made with {name} {old} and this run has {value}, which changes the order of "
                    f"the rows: set {name} back to {old} or start a new run"
                )
        self.close()
        self.epoch, self.batch, self.cursor = state["epoch"], state["batch"], Cursor.of(state["cursor"])
        if RANKS in state["order"] and self.cursor.batch:
            self.cursor = self.cursor.begun(state["order"][RANKS])
        self.first_stored = state["first_stored"]

    def _passes(self) -> Generator[tuple[ActivationBatch, Cursor]]:
        while True:
            start, came = self.cursor, False
            for batch, cursor in (self._stored_pass if self._reads_store(start.round) else self._streamed_pass)(start):
                came = True
                yield batch, cursor
            if not came and start == Cursor(start.round):
                raise UserError(
                    f"the text gives fewer training rows than batch_size {self.batch_size}: lower it or give more text"
                )
            self.cursor = Cursor(start.round + 1)

    def _reads_store(self, round_: int) -> bool:
        return self.first_stored is not None and round_ >= self.first_stored

    def _streamed_pass(self, start: Cursor) -> Iterator[tuple[ActivationBatch, Cursor]]:
        start = start.begun(self.rank.world_size)
        if self._source is None:
            self._source = self._streamed_pools(start)
            if self.ahead:
                self._source = Ahead(self._source, self.pools.device)
        yield from mix(self._source, start, self.seed, self._lanes_of(start), self.agree)

    def _streamed_pools(self, start: Cursor) -> Generator[Pools]:
        """Those of this pass and of the passes after it, so that the first of a pass are made ahead too."""
        while not (self._reads_store(start.round) or self.pools.stopped.is_set()):
            lanes = self._lanes_of(start)
            first = {lane: start.leftovers[lane].pool for lane in lanes.places()}
            fill = None if self.fill is None or is_store(self.fill) else self.fill
            yield from self.pools.read(first, lanes.number, fill)
            start = Cursor(start.round + 1).begun(self.rank.world_size)

    def _lanes_of(self, start: Cursor) -> Lanes:
        return Lanes(len(start.leftovers), self.batch_size, self.rank)

    def _stored_pass(self, start: Cursor) -> Iterator[tuple[ActivationBatch, Cursor]]:
        assert self.stored is not None  # wherever there is a store to fill
        loader = self.stored()
        loader.epoch, loader.batch = start.round, start.batch
        for batch in loader:
            # the loader's own is 0 after its last batch, but only once that was asked for
            whole = loader.batch == len(loader)
            yield batch, Cursor(start.round + 1) if whole else Cursor(start.round, batch=loader.batch)
