"""Schedules as pure functions of the optimiser step."""

from __future__ import annotations


def trapezoid(step: int, total: int, warmup: int, decay: int) -> float:
    """Linear rise over `warmup` steps, 1, then a linear fall to 0 over the last `decay` of `total` steps.

    The first step has 1/warmup, not 0, so that no step is spent on nothing; the last has 1/decay.
    """
    rise = (step + 1) / warmup if warmup > 0 else 1.0
    fall = (total - step) / decay if decay > 0 else 1.0
    return max(0.0, min(1.0, rise, fall))
