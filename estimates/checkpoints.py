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
    """Checkpoints that are on the disk, those of before among them."""

    at_the_end: int
    """If each validation is better than the one before."""
    at_most: int
    """At any time and whatever is measured, the one that is being written among them."""
    bytes: int
    """Of those at the end."""
    most_bytes: int


def kept(
    saved: Sequence[int],
    validated: Collection[int],
    size: int,
    retention: Retention | None,
    metrics: Sequence[str] = (),
    seconds_a_step: float = 0.0,
    present: Sequence[StoredCheckpoint] = (),
) -> Kept:
    """How many checkpoints there will be.

    Args:
        saved: the steps that are saved, ascending.
        validated: those of them whose weights are measured.
        size: bytes of a checkpoint.
        retention: None keeps all.
        metrics: names of what is logged.
        seconds_a_step: for rules that go by age.
        present: those that are there before.

    Raises:
        UserError: a rule makes no sense, or the budget is smaller than two checkpoints.
    """
    if retention is None or not retention.deletes:
        every = [*present, *(_checkpoint(step, number, size, {}, 0.0) for number, step in enumerate(saved))]
        if retention is not None and every:
            plan_retention(every, retention.rules, 0.0, every[-1].path)  # refuses what makes no sense
        whole = sum(checkpoint.bytes for checkpoint in every)
        return Kept(len(every), len(every), whole, whole)
    names = [name for name in metrics if retention.rules.metric and f"/{name}".endswith(f"/{retention.rules.metric}")]
    play = _Play(saved, validated, size, retention.rules, names, seconds_a_step, present)
    improving = play.with_goodness(lambda validation, metric: validation)
    # each metric has its best elsewhere, and early
    best = retention.rules.keep_best
    scattered = play.with_goodness(lambda validation, metric: -abs(validation - metric * best))
    return improving._replace(
        at_most=max(improving.at_most, scattered.at_most), most_bytes=max(improving.most_bytes, scattered.most_bytes)
    )


@dataclass(frozen=True)
class _Play:
    """A run's saves, whatever is measured of them."""

    saved: Sequence[int]
    validated: Collection[int]
    size: int
    rules: RetentionRules
    metrics: Sequence[str]
    seconds_a_step: float
    present: Sequence[StoredCheckpoint]

    def with_goodness(self, goodness: Callable[[int, int], float]) -> Kept:
        """What is kept where `goodness` says how good the n-th validation is by the m-th metric."""
        there = list(self.present)
        first = 1 + max((checkpoint.sequence for checkpoint in there), default=0)
        most, most_bytes, validation, sign = len(there), _size(there), 0, 1 if self.rules.mode == "max" else -1
        for number, step in enumerate(self.saved, start=first):
            measured: dict[str, float] = {}
            if step in self.validated:
                measured = {name: sign * goodness(validation, place) for place, name in enumerate(self.metrics)}
                validation += 1
            there.append(_checkpoint(step, number, self.size, measured, step * self.seconds_a_step))
            most, most_bytes = max(most, len(there)), max(most_bytes, _size(there))
            plan = plan_retention(there, self.rules, there[-1].time, there[-1].path)
            there = [checkpoint for checkpoint, _ in plan.kept]
        return Kept(len(there), most, _size(there), most_bytes)


def _size(checkpoints: Sequence[StoredCheckpoint]) -> int:
    return sum(checkpoint.bytes for checkpoint in checkpoints)


def _checkpoint(step: int, number: int, size: int, metrics: dict[str, float], time: float) -> StoredCheckpoint:
    return StoredCheckpoint(Path(f"step-{step:08d}"), step, 0, number, time, metrics, {}, size)
