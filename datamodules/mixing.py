"""Rows in the order of the text, mixed over two pools at a time; a cursor is all the state there is.

A pool is what some consecutive windows of the text give. A keyed permutation orders its rows; a segment of the output
is what the segments before have left over, and about half of the next pool, shuffled. So rows mix with those of the
pools on both sides, no more than two pools are held, and every row comes exactly once a pass. Any segment is made again
from its own pool and what was left over of those before it: nothing is stored.

Several ranks mix pools of their own and agree on the number of batches of each segment.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from datamodules.shards import ActivationBatch
from datamodules.shards.permutation import Permutation

Places = npt.NDArray[np.int64]  # [n], places of rows in a pool
Part = tuple["Pool", Places]
Agree = Callable[[list[int]], list[list[int]]]  # numbers of this rank → those of every rank, in order


class Pool(NamedTuple):
    """Training rows of consecutive windows of one pass over the text, as one rank has them."""

    number: int
    """Of the pool in its pass, from 0."""
    last: bool
    """Whether the pass ends with it, which all ranks know."""
    activations: tuple[Tensor, ...]
    """[rows, d] per hook point, any dtype."""
    rows: Tensor
    """int64 [rows], the row numbers."""


class Leftover(NamedTuple):
    """What is left over at the start of a segment on one rank: all rows from a place in a pool to the segment's own."""

    pool: int
    place: int


class Cursor(NamedTuple):
    """The next batch. Plain numbers, the same on all ranks."""

    round: int = 0
    """Passes over the text before this one."""
    segment: int = 0
    """Also the number of the pool that it adds."""
    batch: int = 0
    """Within the segment."""
    leftovers: tuple[Leftover, ...] = ()
    """Per rank, at the start of the segment; empty where a pass begins."""

    def first_pool(self, rank: int) -> int:
        """The first pool that a rank needs to go on."""
        return self.leftovers[rank].pool if self.leftovers else self.segment

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
    """The same number on every rank."""
    taken: list[int]
    """Rows of each rank's new pool, beside all that was left over before."""
    kept: list[bool]
    """Whether a rank's leftover stays one because there are too few rows for a batch."""


def share_out(left: Sequence[int], pool: Sequence[int], batch_rows: int, last: bool) -> Share:
    """Divides a new pool between this segment and the next, about evenly.

    A single rank loses nothing before the end of a pass, where less than a batch may remain. Of several, the one with
    the fewest rows decides; one that has a pool more than that leaves the surplus unread.

    Args:
        left: Per rank, rows left over.
        pool: Per rank, rows of the new pool.
        batch_rows: Rows in a rank's batch.
        last: Whether nothing comes after this pool.
    """
    pairs = list(zip(left, pool, strict=True))
    most = min(a + b for a, b in pairs) // batch_rows
    if last:
        return Share(most, list(pool), [False] * len(pairs))
    half = min(a + b // 2 for a, b in pairs) // batch_rows
    least = max(-(-a // batch_rows) for a in left)
    if least > most or not half + least:
        # Few rows stay where they are; many, of a rank that waits for a poorer one, would only become more.
        kept = [a + b < max(1, -(-a // batch_rows)) * batch_rows for a, b in pairs]
        return Share(0, [0] * len(pairs), kept)
    batches = max(least, half)
    return Share(batches, [batches * batch_rows - a for a in left], [False] * len(pairs))


def mix(
    pools: Iterable[Pool], start: Cursor, seed: int, batch_rows: int, rank: int = 0, agree: Agree = lambda mine: [mine]
) -> Iterator[tuple[ActivationBatch, Cursor]]:
    """Yields the batches of the rest of one pass, each with the cursor of the batch that comes after it.

    Args:
        pools: The rank's pools from `start.first_pool(rank)` on; none is asked for after the last one of the pass.
        start: Where to begin.
        seed: Decides the order, with the round, the pool and the rank.
        batch_rows: Rows in a rank's batch.
        rank: Which one this is.
        agree: Gives every rank's numbers for this rank's; called once a segment, by all ranks.
    """
    cursor = start
    parts: list[Part] = []
    for pool in pools:
        order = permuted(len(pool.rows), f"{seed} {start.round} {rank} pool {pool.number}")
        if pool.number < start.segment:
            parts.append((pool, order[0 if parts else start.leftovers[rank].place :]))
            continue
        left, sizes = zip(*agree([_rows_in(parts), len(order)]), strict=True)
        share = share_out(left, sizes, batch_rows, pool.last)
        following = _following(cursor, share, pool)
        taken = share.taken[rank]
        segment = [*parts, (pool, order[:taken])]
        places = permuted(_rows_in(segment), f"{seed} {start.round} {rank} segment {pool.number}")
        parts = [*(parts if share.kept[rank] else []), (pool, order[taken:])]
        for batch in range(cursor.batch, share.batches):
            after = cursor._replace(batch=batch + 1) if batch + 1 < share.batches else following
            yield _gather(segment, places[batch * batch_rows : (batch + 1) * batch_rows]), after
        del segment  # or the next pool would be waited for with one pool more in memory
        if pool.last:
            return
        cursor = following


def permuted(size: int, key: str) -> Places:
    """0 … size - 1 in an order that the key decides, the same on every machine."""
    return Permutation(size, key)(np.arange(size)) if size else np.arange(0)


def _following(cursor: Cursor, share: Share, pool: Pool) -> Cursor:
    """The start of the next segment."""
    if pool.last:
        return Cursor(cursor.round + 1)
    before = cursor.leftovers or tuple(Leftover(pool.number, 0) for _ in share.taken)
    leftovers = tuple(
        old if kept else Leftover(pool.number, taken)
        for old, kept, taken in zip(before, share.kept, share.taken, strict=True)
    )
    return Cursor(cursor.round, cursor.segment + 1, 0, leftovers)


def _rows_in(parts: list[Part]) -> int:
    return sum(len(places) for _, places in parts)


def _gather(segment: list[Part], chosen: Places) -> ActivationBatch:
    """The batch of some places of a segment; pool by pool, since order within a batch means nothing."""
    chosen, first, gathered = np.sort(chosen), 0, []
    for pool, places in segment:
        here = chosen[np.searchsorted(chosen, first) : np.searchsorted(chosen, first + len(places))] - first
        index = torch.from_numpy(places[here])
        gathered.append((*(a.index_select(0, index) for a in pool.activations), pool.rows.index_select(0, index)))
        first += len(places)
    *activations, rows = (torch.cat(parts) for parts in zip(*gathered, strict=True))
    return ActivationBatch(tuple(a.float() for a in activations), rows)
