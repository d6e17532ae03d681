"""What any rank wants of all, once a batch."""

from __future__ import annotations

import torch
from torch import distributed


class Vote:
    """The largest number that any rank has cast at the beginning of a batch. It goes over the CPU while the batch is
    computed, so that no GPU is waited for.
    """

    def __init__(self) -> None:
        self._group: distributed.ProcessGroup | None = None
        self._number = torch.tensor(0)
        self._under_way: distributed.Work | None = None

    def start(self, processes: int) -> None:
        """To be called on every rank once they are connected."""
        self._under_way = None
        self._group = distributed.new_group(backend="gloo") if processes > 1 else None

    def cast(self, number: int) -> None:
        """Begins a vote. To be called on every rank, as `outcome` then is."""
        if self._group is not None:
            self._number = torch.tensor(number)
            largest = distributed.ReduceOp.MAX
            self._under_way = distributed.all_reduce(self._number, largest, self._group, async_op=True)

    def outcome(self, own: int) -> int:
        """The largest number.

        Args:
            own: what this process would cast now, for one without others.
        """
        if self._under_way is None:
            return own
        self._under_way.wait()
        self._under_way = None
        return int(self._number)
