"""Several pieces of work at once on a CPU, each with its share of the threads that torch uses.

An operation in n threads takes more than an nth of its time: at its end all wait for the slowest, and what lies between
operations is done by one. Pieces that have nothing to do with each other need not wait. Where they are of unequal
length, who has nothing left to do takes over parts of what others are about to do: see `shared_out`.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache, partial
from threading import Barrier, Condition, local
from typing import Any, NamedTuple, TypeVar

import torch

T = TypeVar("T")
Piece = Callable[[], Any]
PARTS = 4
"""That work is cut into for others to take: the more, the less is waited for at the end."""


def side_by_side(work: Sequence[Callable[[], T]]) -> list[T]:
    """What each piece gives, in their order.

    A piece finds grad mode, inference mode and autocast as they are here, and `torch.get_num_threads()` at its share.
    With one thread, or of one piece, it is a plain call.

    Args:
        work: the pieces; they meet neither each other nor other processes.

    Raises:
        Exception: the first of them failed with it; all have ended by then.
    """
    threads = torch.get_num_threads()
    workers = min(threads, len(work))
    if workers < 2:
        return [piece() for piece in work]
    team, pool = _Team(work), _pool(os.getpid(), workers, threads)
    wait([pool.submit(team.join) for _ in range(workers)])
    return team.pieces.outcome()


def shared_out(work: Sequence[Callable[[], T]]) -> list[T]:
    """What each piece gives, in their order. Within a piece of `side_by_side` those who have nothing left to do take
    from the end; anywhere else they are called one after the other.

    Args:
        work: the pieces, as of `side_by_side`.

    Raises:
        Exception: the first of them failed with it; none is being worked on any more.
    """
    team = _here.team
    return [piece() for piece in work] if team is None or len(work) < 2 else team.share(work)


def parts_worth_sharing() -> int:
    """How many parts work is to be cut into for `shared_out`: one where nobody would take any."""
    return 1 if _here.team is None else PARTS


class _Offer:
    """Pieces that whoever has time does."""

    def __init__(self, work: Sequence[Piece]) -> None:
        self.left = deque(enumerate(work))
        self.unfinished = len(work)
        self.results: list[Any] = [None] * len(work)
        self.errors: dict[int, BaseException] = {}

    def outcome(self) -> list[Any]:
        if self.errors:
            raise self.errors[min(self.errors)]
        return self.results


class _Team:
    """Those who share the work of one call."""

    def __init__(self, work: Sequence[Piece]) -> None:
        modes = _Modes.here()
        self.pieces = _Offer([partial(modes.call, piece) for piece in work])
        self._parts: list[_Offer] = []
        self._changed = Condition()

    def join(self) -> None:
        """Works until all is done."""
        _here.team = self
        try:
            while taken := self._next():
                self._do(*taken)
        finally:
            _here.team = None

    def _next(self) -> tuple[_Offer, int, Piece] | None:
        """A whole piece, else a part of another's; waits for one until there will be none."""
        with self._changed:
            while True:
                if self.pieces.left:
                    return self.pieces, *self.pieces.left.popleft()
                for parts in self._parts:
                    if parts.left:
                        return parts, *parts.left.pop()
                if not self.pieces.unfinished:
                    return None
                self._changed.wait()

    def share(self, work: Sequence[Piece]) -> list[Any]:
        """See `shared_out`."""
        modes = _Modes.here()
        parts = _Offer([partial(modes.call, piece) for piece in work])
        with self._changed:
            self._parts.append(parts)
            self._changed.notify_all()
        while taken := self._own(parts):
            self._do(parts, *taken)
        with self._changed:
            self._parts.remove(parts)
            self._changed.wait_for(lambda: not parts.unfinished)
        return parts.outcome()

    def _own(self, parts: _Offer) -> tuple[int, Piece] | None:
        with self._changed:
            return parts.left.popleft() if parts.left else None

    def _do(self, offer: _Offer, place: int, piece: Piece) -> None:
        try:
            offer.results[place] = piece()
        except BaseException as error:  # for whoever asked for the piece
            offer.errors[place] = error
        with self._changed:
            offer.unfinished -= 1
            if not offer.unfinished:
                self._changed.notify_all()


class _Here(local):
    team: _Team | None = None
    """That the thread belongs to."""


_here = _Here()


class _Modes(NamedTuple):
    """What torch keeps for each thread."""

    grad: bool
    inference: bool
    autocast: bool
    dtype: torch.dtype
    caches: bool

    @classmethod
    def here(cls) -> _Modes:
        return cls(
            torch.is_grad_enabled(),
            torch.is_inference_mode_enabled(),
            torch.is_autocast_enabled("cpu"),
            torch.get_autocast_dtype("cpu"),
            torch.is_autocast_cache_enabled(),
        )

    def call(self, piece: Callable[[], T]) -> T:
        precision = torch.autocast("cpu", self.dtype, enabled=self.autocast, cache_enabled=self.caches)
        with torch.inference_mode(self.inference), torch.set_grad_enabled(self.grad), precision:
            return piece()


@cache
def _pool(process: int, workers: int, threads: int) -> ThreadPoolExecutor:
    """One a process: threads do not survive a fork."""
    ready = Barrier(workers + 1)

    def start() -> None:
        torch.get_num_threads()  # the first time it takes what was set last, wherever that was
        torch.set_num_threads(threads // workers)
        ready.wait()

    pool = ThreadPoolExecutor(workers, thread_name_prefix="side-by-side", initializer=start)
    for _ in range(workers):
        pool.submit(lambda: None)
    ready.wait()
    # what was set last is what threads of others begin with
    torch.set_num_threads(threads)
    return pool
