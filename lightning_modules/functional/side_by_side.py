"""Several pieces of work at once on a CPU, each with its share of the threads that torch uses.

An operation in n threads takes more than an nth of its time: at its end all wait for the slowest, and what lies between
operations is done by one. Pieces that have nothing to do with each other need not wait.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache
from threading import Barrier
from typing import NamedTuple, TypeVar

import torch

T = TypeVar("T")


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
    modes, pool = _Modes.here(), _pool(os.getpid(), workers, threads)
    results = [pool.submit(modes.call, piece) for piece in work]
    wait(results)
    return [result.result() for result in results]


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
