"""Shards fetched before they are asked for, since a shuffle that is a formula says what that will be."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from threading import Condition, Thread

import numpy as np
import numpy.typing as npt

from datamodules.shards.cache import Content, FileCache, Outcome
from datamodules.shards.grouped import GroupedShuffle

_AHEAD = 2
"""Groups that are fetched: the one that is read, and the one after it."""
_SECONDS_UNTIL_ANOTHER_LOOK = 0.5


@dataclass(frozen=True)
class Plan:
    """What is read from now on."""

    wanted: tuple[tuple[int, Content], ...]
    """What is to be in the cache, and how soon it is read."""
    uses: dict[str, int]
    """By sha256, how soon each file of the store is read."""


@dataclass(frozen=True)
class Following:
    """An order that is read, as the loader of its batches tells it."""

    ahead: ReadAhead
    order: GroupedShuffle

    def at(self, epoch: int, start: int, stop: int) -> None:
        """These places of an epoch are read now."""
        self.ahead.at(self.order, epoch, start, stop)

    def at_rest(self) -> None:
        """Nothing is read for now; the next time it is from the beginning."""
        self.ahead.at_rest(self.order)


NOTHING = Plan((), {})


class ReadAhead:
    """Threads that keep a cache ahead of whoever reads.

    Several orders may be read in turns, as training and validation are. Files of the one that is being read come first,
    then those that the others begin or go on with, then all else in the order in which it is read: whatever goes from
    the cache is what is needed last (Belady's rule, which needs the future that is known here).

    Args:
        cache: to be kept.
        files_of: the files that are read of a shard.
        fetch: puts a file into the cache, if the last says that it is still wanted; (file, uses, how soon, whether
            that still holds) → what came of it.
        connections: files that are fetched at once.
        lasting: sha256 of a file that stays as long as what is read next.
    """

    def __init__(
        self,
        cache: FileCache,
        files_of: Callable[[int], Sequence[Content]],
        fetch: Callable[[Content, dict[str, int], int, Callable[[], bool]], Outcome],
        connections: int,
        lasting: str,
    ) -> None:
        self.plan = NOTHING
        self._lasting = lasting
        self._cache, self._files_of, self._fetch, self._connections = cache, files_of, fetch, connections
        self._places: dict[int, tuple[GroupedShuffle, int, int]] = {}
        self._here: tuple[int, int, frozenset[int]] | None = None
        self._failed: set[str] = set()
        self._threads: list[Thread] = []
        self._changed = Condition()
        self._is_closed = False

    def at(self, order: GroupedShuffle, epoch: int, start: int, stop: int) -> None:
        """Says that these places of an epoch are read next. What lies a batch before may still be read by others."""
        before = max(0, start - (stop - start))
        shards = frozenset(order.shards_at(epoch, before, max(stop, before + 1)))
        if self._here == (here := (id(order), epoch, shards)):
            return
        self._here = here
        self._places[id(order)] = order, epoch, start
        with self._changed:
            self.plan = self._planned(order, epoch, start, shards)
            self._failed.clear()
            self._changed.notify_all()
        if not self._threads and not self._is_closed:
            self._threads = [
                Thread(target=self._work, name=f"fulgurite-fetch-{number}", daemon=True)
                for number in range(self._connections)
            ]
            for thread in self._threads:
                thread.start()

    def at_rest(self, order: GroupedShuffle) -> None:
        """Says that an order is read no further now, and from its beginning the next time."""
        self._places[id(order)] = order, 0, 0

    def close(self, patience: float = 10.0) -> None:
        """Ends the threads, as soon as what they wait for has come."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join(patience)
        self._threads = []

    def _planned(self, order: GroupedShuffle, epoch: int, start: int, now: frozenset[int]) -> Plan:
        # the group of this place is among those of now
        mine = [np.array(sorted(now)), *islice(order.groups_from(epoch, start), 1, None)]
        others = [
            group
            for other, other_epoch, place in self._places.values()
            if other is not order
            for group in islice(other.groups_from(other_epoch, place), _AHEAD)
        ]
        groups: list[npt.NDArray[np.int64]] = [*mine[:_AHEAD], *others, *mine[_AHEAD:]]
        uses = {self._lasting: _AHEAD}
        wanted = []
        for soon, group in enumerate(groups):
            for content in (content for shard in group for content in self._files_of(int(shard))):
                if content.sha256 not in uses:
                    uses[content.sha256] = soon
                    if soon < _AHEAD:
                        wanted.append((soon, content))
        return Plan(tuple(wanted), uses)

    def _work(self) -> None:
        while True:
            with self._changed:
                if self._is_closed:
                    return
                plan = self.plan
            blocked = self._fetch_one(plan)
            if blocked is not None:
                with self._changed:
                    if self.plan is plan and not self._is_closed:
                        # what blocks it may be another process, which cannot tell that it is done
                        self._changed.wait(_SECONDS_UNTIL_ANOTHER_LOOK if blocked else None)

    def _fetch_one(self, plan: Plan) -> bool | None:
        """None when something was fetched, else whether something is left that cannot be fetched yet."""
        is_left = False
        for soon, content in plan.wanted:
            if content.sha256 in self._failed or self._cache.has(content):
                continue
            try:
                # by a plan of before, what has been read would come back and what is read next would go for it
                outcome = self._fetch(content, plan.uses, soon, lambda: self.plan is plan)
            except Exception:  # whoever reads the file will meet it, and tell
                self._failed.add(content.sha256)
                continue
            if outcome is Outcome.THERE:
                return None
            is_left = True
            if outcome is Outcome.FULL:
                break
        return is_left
