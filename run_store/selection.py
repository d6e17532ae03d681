"""Choosing the best of several runs by what they measured: a pure function of the runs' records."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from run_store.record import RunRecord

Direction = Literal["min", "max"]
TieBreak = Literal["newest", "oldest", "most_steps", "fewest_steps"]


@dataclass(frozen=True)
class Candidate:
    """A run that may be chosen; `created` is ISO 8601 in UTC."""

    id: str
    created: str
    step: int
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class Bounds:
    """Values that are good enough, the ends included; None is no bound."""

    at_least: float | None = None
    at_most: float | None = None


@dataclass(frozen=True)
class Criterion:
    """What is best.

    Args:
        metrics: weight by metric; the weighted sum is compared. One metric with weight 1 is compared as it is.
        direction: whether the lowest or the highest sum is the best.
        thresholds: runs outside of these bounds are not considered; the metrics need not be among those compared.
        tie_break: which of several equally good runs; the one with the lowest id if they tie there too.
    """

    metrics: Mapping[str, float]
    direction: Direction = "min"
    thresholds: Mapping[str, Bounds] = field(default_factory=dict)
    tie_break: TieBreak = "newest"


@dataclass(frozen=True)
class Selection:
    """The outcome: the best run's id, None when there is none, its score, and why each of the others was left out."""

    best: str | None
    score: float | None
    rejected: Mapping[str, str]


def candidate_of(record: RunRecord) -> Candidate:
    """A run as a candidate, with the metrics that it noted last."""
    return Candidate(record.id, record.created, record.progress.step, record.metrics)


def select_best(candidates: Iterable[Candidate], criterion: Criterion) -> Selection:
    """The best candidate. One that lacks a metric, or where it is NaN or infinite, is never the best.

    The order of the candidates does not matter.
    """
    rejected: dict[str, str] = {}
    scored: list[tuple[float, Candidate]] = []
    for candidate in candidates:
        if problem := unfit(candidate, criterion):
            rejected[candidate.id] = problem
        else:
            scored.append((_score(candidate, criterion), candidate))
    if not scored:
        return Selection(None, None, rejected)
    best_score = (min if criterion.direction == "min" else max)(score for score, _ in scored)
    equals = sorted((candidate for score, candidate in scored if score == best_score), key=lambda found: found.id)
    best = _break_tie(equals, criterion.tie_break)
    for score, candidate in scored:
        if candidate.id != best.id:
            rejected[candidate.id] = "ties and loses" if score == best_score else f"scores {score:.6g}"
    return Selection(best.id, best_score, rejected)


def unfit(candidate: Candidate, criterion: Criterion) -> str | None:
    """Why a candidate can never be the best by this criterion, whatever the others are; None when it can."""
    for name in [*criterion.metrics, *criterion.thresholds]:
        if name not in candidate.metrics:
            return f"has no {name}"
        if not math.isfinite(candidate.metrics[name]):
            return f"{name} is {candidate.metrics[name]}"
    for name, bounds in criterion.thresholds.items():
        value = candidate.metrics[name]
        if bounds.at_least is not None and value < bounds.at_least:
            return f"{name} is {value:.6g}, below {bounds.at_least:.6g}"
        if bounds.at_most is not None and value > bounds.at_most:
            return f"{name} is {value:.6g}, above {bounds.at_most:.6g}"
    return None if math.isfinite(_score(candidate, criterion)) else "scores beyond what a float holds"


def _score(candidate: Candidate, criterion: Criterion) -> float:
    return sum(weight * candidate.metrics[name] for name, weight in criterion.metrics.items())


def _break_tie(equals: list[Candidate], tie_break: TieBreak) -> Candidate:
    """Of equally good candidates, sorted by id; min and max take the first of several."""
    if tie_break in ("newest", "oldest"):
        return (max if tie_break == "newest" else min)(equals, key=lambda found: found.created)
    return (max if tie_break == "most_steps" else min)(equals, key=lambda found: found.step)
