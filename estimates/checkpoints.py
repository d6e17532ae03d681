"""What checkpoints will take on the disk under the rules of retention, by playing them through."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from run_store.checkpoints import StoredCheckpoint
from run_store.retention import RetentionRules, plan_retention


@dataclass(frozen=True)
class Retention:
    """What thins out checkpoints.

    Attributes:
        rules: which stay.
        deletes: whether the others go.
    """

    rules: RetentionRules
    deletes: bool


class Kept(NamedTuple):
    """Checkpoints of a size that all have in common."""

    at_the_end: int
    """If each validation is better than the one before."""
    at_most: int
    """At any time and whatever is measured, the one that is being written among them."""


def kept(
    saved: Sequence[int],
    validated: Collection[int],
    size: int,
    retention: Retention | None,
    metrics: Sequence[str] = (),
    seconds_a_step: float = 0.0,
) -> Kept:
    """How many checkpoints there will be.

    Args:
        saved: the steps that are saved, ascending.
        validated: those of them whose weights are measured.
        size: bytes of a checkpoint.
        retention: None keeps all.
        metrics: names of what is logged.
        seconds_a_step: for rules that go by age.

    Raises:
        UserError: a rule makes no sense, or the budget is smaller than two checkpoints.
    """
    if retention is None or not retention.deletes:
        if retention is not None and saved:
            _after(retention.rules, [_checkpoint(saved[0], 1, size, {}, 0.0)])  # refuses what makes no sense
        return Kept(len(saved), len(saved))
    names = [name for name in metrics if retention.rules.metric and f"/{name}".endswith(f"/{retention.rules.metric}")]
    best = retention.rules.keep_best

    def played(goodness: Callable[[int, int], float]) -> Kept:
        return _played(saved, validated, size, retention.rules, names, goodness, seconds_a_step)

    improving = played(lambda validation, metric: validation)
    # each metric has its best elsewhere, and early
    scattered = played(lambda validation, metric: -abs(validation - metric * best))
    return Kept(improving.at_the_end, max(improving.at_most, scattered.at_most))


def _played(
    saved: Sequence[int],
    validated: Collection[int],
    size: int,
    rules: RetentionRules,
    metrics: Sequence[str],
    goodness: Callable[[int, int], float],
    seconds_a_step: float,
) -> Kept:
    there: list[StoredCheckpoint] = []
    most, validation, sign = 0, 0, 1 if rules.mode == "max" else -1
    for number, step in enumerate(saved, start=1):
        measured: dict[str, float] = {}
        if step in validated:
            measured = {name: sign * goodness(validation, place) for place, name in enumerate(metrics)}
            validation += 1
        there.append(_checkpoint(step, number, size, measured, step * seconds_a_step))
        most = max(most, len(there))
        there = _after(rules, there)
    return Kept(len(there), most)


def _after(rules: RetentionRules, there: list[StoredCheckpoint]) -> list[StoredCheckpoint]:
    newest = there[-1]
    plan = plan_retention(there, rules, newest.time, newest.path)
    return [checkpoint for checkpoint, _ in plan.kept]


def _checkpoint(step: int, number: int, size: int, metrics: dict[str, float], time: float) -> StoredCheckpoint:
    return StoredCheckpoint(Path(f"step-{step:08d}"), step, 0, number, time, metrics, {}, size)
