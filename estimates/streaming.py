"""How long training takes that waits for pools of rows which a model reads meanwhile."""

from __future__ import annotations

from collections.abc import Iterator

from estimates.measured import Streaming

MOST_OVERLAP = 0.5
"""Share of a step's time beside the reading that it is taken to need alone, at least."""


def step_alone(step_beside: float, streaming: Streaming) -> float:
    """Seconds of a batch while nothing is read.

    Both share the processor: what the reading had of it in a second is its speed there over its speed alone, and the
    rest is what steps need. Where they did not get in each other's way, that would say that steps need nothing, hence
    the bound.
    """
    if not streaming.read_alone or not streaming.ahead:
        return step_beside
    left = 1 - streaming.read_beside / streaming.read_alone
    return step_beside * min(1.0, max(MOST_OVERLAP, left))


def streamed_seconds(batches: int, step_beside: float, streaming: Streaming, between: float = 0.0) -> float:
    """Seconds of so many batches, from before the first pool is read.

    A reader makes pools one after the other, one ahead of the one that is trained on. Of a pass over the text the first
    pool gives batches from half of its rows, each other one from as many as it has, and the last one all that is left.

    Args:
        batches: of one rank.
        step_beside: seconds of a batch while the reader reads.
        streaming: how fast that is.
        between: seconds a batch of what else goes on meanwhile, such as validations. They are not counted, but the
            reader reads on.
    """
    seconds, left = 0.0, float(batches)
    if not streaming.ahead:
        return batches * (step_beside + streaming.batch_rows / streaming.read_alone)
    whole, alone_step = step_beside + between, step_alone(step_beside, streaming) + between
    read_beside = streaming.read_beside or streaming.read_alone
    read = 0.0  # rows of the next pool that the reader has made
    for pool_rows, segment_rows in _segments(streaming):
        seconds += max(0.0, pool_rows - read) / streaming.read_alone  # waits for it
        here = min(segment_rows / streaming.batch_rows, left)
        ready = pool_rows / read_beside  # the next one is as large, or the reader begins another pass
        beside = min(here, ready / whole)
        seconds += beside * whole + (here - beside) * alone_step
        read = beside * whole * read_beside
        left -= here
        if left <= 0:
            break
    return seconds - batches * between


def _segments(streaming: Streaming) -> Iterator[tuple[float, float]]:
    """Rows of each pool and of the batches that follow it, pass after pass."""
    size, whole = streaming.pool_rows, streaming.pass_rows
    while True:
        left, kept = float("inf") if whole is None else whole, 0.0
        while left > 0:
            pool = min(size, left)
            left -= pool
            taken = kept + pool if left <= 0 else pool / 2 + kept
            yield pool, taken
            kept += pool - taken
