"""Rows in the order of the text, mixed over two pools at a time; a cursor is all the state there is.

A pool is what some consecutive windows of a lane give. A keyed permutation orders its rows; a segment of the output is
what the segments before have left over, and about half of the next pool, shuffled. So rows mix with those of the pools
on both sides, no more than two pools are held, and every row comes exactly once a pass. Any segment is made again from
its own pool and what was left over of those before it: nothing is stored.

Several lanes agree on the number of batches of each segment, and a batch has as many rows of each. So what a cursor
means depends on the number of lanes, and on that of the processes only who mixes which (`Lanes`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from datamodules.lanes import Lanes
from datamodules.shards import ActivationBatch
from datamodules.shards.permutation import Permutation

Places = npt.NDArray[np.int64]  # [n], places of rows in a pool
Part = tuple["Pool", Places]
Segment = tuple[list[Part], Places]  # of one lane, and its places in the order in which they are drawn
Agree = Callable[[list[list[int]]], list[list[int]]]  # numbers ≥ 0 per lane, -1 where not known here → those of all


class Pool(NamedTuple):
    """Training rows of consecutive windows of one lane in one pass over the text."""

    activations: tuple[Tensor, ...]
    """[rows, d] per hook point, any dtype."""
    rows: Tensor
    """int64 [rows], the row numbers."""


class Pools(NamedTuple):
    """The pools of one number, one per lane."""

    number: int
    """In the pass, from 0."""
    last: bool
    """Whether the pass ends with them, which all processes know."""
    by_lane: dict[int, Pool]
    """Of the lanes that this process mixes; of those alone that are needed as early as this."""


class Leftover(NamedTuple):
    """What is left over at the start of a segment in one lane: all rows from a place in a pool to the segment's own."""

    pool: int
    place: int


class Cursor(NamedTuple):
    """The next batch. Plain numbers, the same in all processes."""

    round: int = 0
    """Passes over the text before this one."""
    segment: int = 0
    """Also the number of the pool that it adds."""
    batch: int = 0
    """Within the segment."""
    leftovers: tuple[Leftover, ...] = ()
    """Per lane, at the start of the segment; empty where a pass has not begun, so that any lanes may make it."""

    def begun(self, lanes: int) -> Cursor:
        """The same, of a pass of so many lanes unless it has some already."""
        return self if self.leftovers else self._replace(leftovers=(Leftover(0, 0),) * lanes)

    def plain(self) -> dict[str, Any]:
        """As a checkpoint holds it."""
        return {**self._asdict(), "leftovers": [list(leftover) for leftover in self.leftovers]}

    @staticmethod
    def of(plain: dict[str, Any]) -> Cursor:
        """What `plain` came from."""
        return Cursor(**{**plain, "leftovers": tuple(Leftover(*leftover) for leftover in plain["leftovers"])})


class Share(NamedTuple):
    """What a segment takes."""

    batches: int
    """The same number of every lane."""
    taken: list[int]
    """Rows of each lane's new pool, beside all that was left over before."""
    kept: list[bool]
    """Whether a lane's leftover stays one because there are too few rows for a batch."""


def share_out(left: Sequence[int], pool: Sequence[int], batch_rows: int, last: bool) -> Share:
    """Divides a new pool between this segment and the next, about evenly.

    A single lane loses nothing before the end of a pass, where less than a batch may remain. Of several, the one with
    the fewest rows decides; one that has a pool more than that leaves the surplus unread.

    Args:
        left: Per lane, rows left over.
        pool: Per lane, rows of the new pool.
        batch_rows: Rows in a lane's batch.
        last: Whether nothing comes after this pool.
    """
    pairs = list(zip(left, pool, strict=True))
    most = min(a + b for a, b in pairs) // batch_rows
    if last:
        return Share(most, list(pool), [False] * len(pairs))
    half = min(a + b // 2 for a, b in pairs) // batch_rows
    least = max(-(-a // batch_rows) for a in left)
    if least > most or not half + least:
        # Few rows stay where they are; many, of a lane that waits for a poorer one, would only become more.
        kept = [a + b < max(1, -(-a // batch_rows)) * batch_rows for a, b in pairs]
        return Share(0, [0] * len(pairs), kept)
    batches = max(least, half)
    return Share(batches, [batches * batch_rows - a for a in left], [False] * len(pairs))


def mix(
    made: Iterable[Pools], start: Cursor, seed: int, lanes: Lanes, agree: Agree = lambda known: known
) -> Iterator[tuple[ActivationBatch, Cursor]]:
    """Yields this process's part of each batch of the rest of one pass, with the cursor of the batch after it.

    Args:
        made: The pools of the lanes that this process mixes, each lane's from where its leftover begins; none are asked
            for after the last ones of the pass.
        start: Where to begin in a pass that has `begun`.
        seed: Decides the order, with the round, the pool and the lane.
        lanes: Those of the pass.
        agree: Gives every lane's numbers for those of the lanes that this process mixes; called once a segment, by all
            processes.
    """
    mixers = [_Mixer(lane, places, start, seed, lanes.batch_rows) for lane, places in lanes.places().items()]
    cursor = start
    for number, last, pools in made:
        if number < start.segment:
            for mixer in mixers:
                if mixer.lane in pools:
                    mixer.leave(number, pools[mixer.lane])
            continue
        sizes = [[-1, -1] for _ in range(lanes.number)]
        for mixer in mixers:
            sizes[mixer.lane] = [_rows_in(mixer.left), len(pools[mixer.lane].rows)]
        left, added = zip(*agree(sizes), strict=True)
        share = share_out(left, added, lanes.batch_rows, last)
        following = _following(cursor, share, number, last)
        segments = [mixer.segment(number, pools[mixer.lane], share) for mixer in mixers]
        for batch in range(cursor.batch, share.batches):
            after = cursor._replace(batch=batch + 1) if batch + 1 < share.batches else following
            drawn = [mixer.drawn(*segment, batch) for mixer, segment in zip(mixers, segments, strict=True)]
            yield _gather(drawn), after
            del drawn
        del segments  # or the next pools would be waited for with one more of each lane in memory
        if last:
            return
        cursor = following


class _Mixer:
    """One lane's rows on their way from its pools into segments."""

    def __init__(self, lane: int, taken: slice, start: Cursor, seed: int, batch_rows: int) -> None:
        self.lane = lane
        self.left: list[Part] = []
        self._taken = taken
        self._leftover = start.leftovers[lane]
        self._key = f"{seed} {start.round} {lane}"
        self._batch_rows = batch_rows

    def leave(self, number: int, pool: Pool) -> None:
        """Takes what a pool of a segment before the start has left over."""
        place = self._leftover.place if number == self._leftover.pool else 0
        self.left.append((pool, self._order(number, pool)[place:]))

    def segment(self, number: int, pool: Pool, share: Share) -> Segment:
        """Takes the next pool, and gives the segment to which it belongs."""
        order, taken = self._order(number, pool), share.taken[self.lane]
        parts = [*self.left, (pool, order[:taken])]
        self.left = [*(self.left if share.kept[self.lane] else []), (pool, order[taken:])]
        return parts, permuted(_rows_in(parts), f"{self._key} segment {number}")

    def drawn(self, parts: list[Part], places: Places, batch: int) -> Segment:
        """What this process has of a segment in a batch, in ascending order, which means nothing within a batch."""
        return parts, np.sort(places[batch * self._batch_rows : (batch + 1) * self._batch_rows])[self._taken]

    def _order(self, number: int, pool: Pool) -> Places:
        return permuted(len(pool.rows), f"{self._key} pool {number}")


def permuted(size: int, key: str) -> Places:
    """0 … size - 1 in an order that the key decides, the same on every machine."""
    return Permutation(size, key)(np.arange(size)) if size else np.arange(0)


def _following(cursor: Cursor, share: Share, number: int, last: bool) -> Cursor:
    """The start of the next segment."""
    if last:
        return Cursor(cursor.round + 1)
    leftovers = tuple(
        old if kept else Leftover(number, taken)
        for old, kept, taken in zip(cursor.leftovers, share.kept, share.taken, strict=True)
    )
    return Cursor(cursor.round, cursor.segment + 1, 0, leftovers)


def _rows_in(parts: list[Part]) -> int:
    return sum(len(places) for _, places in parts)


def _gather(segments: list[Segment]) -> ActivationBatch:
    """The batch of some places, ascending, of each lane's segment: lane by lane, and pool by pool."""
    gathered = []
    for parts, chosen in segments:
        first = 0
        for pool, places in parts:
            here = chosen[np.searchsorted(chosen, first) : np.searchsorted(chosen, first + len(places))] - first
            index = torch.from_numpy(places[here])
            gathered.append((*(a.index_select(0, index) for a in pool.activations), pool.rows.index_select(0, index)))
            first += len(places)
    *activations, rows = (torch.cat(parts) for parts in zip(*gathered, strict=True))
    return ActivationBatch(tuple(a.float() for a in activations), rows)
