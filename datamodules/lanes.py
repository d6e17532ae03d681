"""What a pass over streamed text is made of, whatever number of processes trains on it."""

from __future__ import annotations

from typing import NamedTuple

from datamodules.shards import ALONE, Rank


class Lanes(NamedTuple):
    """The lanes of a pass, as one of the processes that share its batches sees them.

    Window w of the text belongs to lane w mod `number`, and each lane mixes pools of its own. A batch is the lanes'
    batches of equal size, one after another, of which each process takes its part (`Rank.share`): with as many
    processes as lanes its own lane's, with fewer those of several, with more a part of one, which others mix too.
    """

    number: int
    """Divides the batch's rows, as that of the processes does."""
    batch_size: int
    """Rows of a batch, over all lanes."""
    rank: Rank = ALONE

    @property
    def batch_rows(self) -> int:
        """Rows of one lane's batch."""
        return self.batch_size // self.number

    def places(self) -> dict[int, slice]:
        """By lane that this process mixes, ascending: the places of the lane's batch that it takes."""
        start, stop = self.rank.share(0, self.batch_size)
        rows = self.batch_rows
        return {
            lane: slice(max(start - lane * rows, 0), min(stop - lane * rows, rows))
            for lane in range(start // rows, -(-stop // rows))
        }
