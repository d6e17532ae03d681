"""How long training takes that waits for pools of rows which a model reads meanwhile."""

from __future__ import annotations

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


def streamed_seconds(batches: int, step_beside: float, streaming: Streaming) -> float:
    """Seconds of so many batches, from before the first pool is read.

    A reader makes pools one after the other, one ahead; batches come from half of the first pool, and then from as
    many rows as a pool has for each one more.

    Args:
        batches: of one rank.
        step_beside: seconds of a batch while the reader reads.
        streaming: how fast that is.
    """
    if batches <= 0:
        return 0.0
    alone = streaming.pool_rows / streaming.read_alone
    if not streaming.ahead:
        return batches * (step_beside + streaming.batch_rows / streaming.read_alone) + alone / 2
    beside = streaming.pool_rows / streaming.read_beside if streaming.read_beside else alone
    a_pool = streaming.pool_rows / streaming.batch_rows
    alone_step = step_alone(step_beside, streaming)
    seconds, segment, left = alone, a_pool / 2, float(batches)
    while left > 0:
        here = min(segment, left)
        if here * step_beside <= beside:
            seconds += here * step_beside
            if left > here:  # waits for the rest of the pool, which the reader now makes alone
                seconds += alone * (1 - here * step_beside / beside)
        else:
            seconds += beside + (here - beside / step_beside) * alone_step
        left -= here
        segment = a_pool
    return seconds
