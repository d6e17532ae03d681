"""Which checkpoints stay: pure rules over what is on disk."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from run_store.checkpoints import StoredCheckpoint, in_words
from run_store.errors import UserError

UNTOUCHED = frozenset({"pending", "initialising", "running", "paused"})
"""Statuses of a run whose checkpoints nobody but the run itself may thin out."""

UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
UNITS |= {"KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}


@dataclass(frozen=True)
class RetentionRules:
    """What is kept. Every rule keeps; a checkpoint that no rule keeps goes, and the budget overrules the first three.

    Args:
        keep_last: the newest n, at least one.
        keep_best: the best k by `metric`. Where the metric is missing or not a number a checkpoint is never among them.
        metric: name of the metric as it was logged; each member of a sweep has its own under NAME/METRIC, and keeps its
            own best, behind those of the metric itself.
        mode: whether the lowest or the highest value is best.
        tie: which of two equally good ones is better, the newer or the older.
        milestone_every: of every so many optimiser steps, the first checkpoint at or after the multiple.
        budget: bytes that all checkpoints together may take.
        minimum_age: seconds for which a checkpoint is left alone whatever else is said.
    """

    keep_last: int = 1
    keep_best: int = 0
    metric: str | None = None
    mode: Literal["min", "max"] = "min"
    tie: Literal["newer", "older"] = "newer"
    milestone_every: int | None = None
    budget: int | None = None
    minimum_age: float = 0.0

    def check(self) -> None:
        """Raises:
        UserError: naming the setting that makes no sense.
        """
        if self.keep_last < 1:
            raise UserError(f"keep_last is {self.keep_last}: keep at least 1, the checkpoint that a resume takes")
        if self.keep_best < 0:
            raise UserError(f"keep_best is {self.keep_best}: give 0 or more")
        if self.keep_best and not self.metric:
            raise UserError("keep_best needs to know by what: name a logged metric in metric, e.g. val/fvu")
        if self.milestone_every is not None and self.milestone_every < 1:
            raise UserError(f"milestone_every is {self.milestone_every}: give a number of optimiser steps, or null")
        if self.minimum_age < 0:
            raise UserError(f"minimum_age is {self.minimum_age}: give 0 or more")


@dataclass(frozen=True)
class RetentionPlan:
    """What stays, with the strongest reason for it, and what goes, oldest first."""

    kept: tuple[tuple[StoredCheckpoint, str], ...]
    removed: tuple[StoredCheckpoint, ...]
    over_budget: int = 0
    """Bytes by which what must stay exceeds the budget."""

    @property
    def freed(self) -> int:
        """Bytes of what goes."""
        return sum(checkpoint.bytes for checkpoint in self.removed)


def plan_retention(
    checkpoints: Sequence[StoredCheckpoint],
    rules: RetentionRules,
    now: float,
    resumable: Path | None,
    needed: Collection[Path] = (),
    status: str | None = None,
) -> RetentionPlan:
    """Decides what goes. When rules clash: what a resume or another run needs stays before all, then what is too
    young, then the budget holds, then the rules that keep; of these a milestone yields to the budget first (the oldest
    before the newer), then the last ones but the newest, then the best (the worst of them first).

    Args:
        checkpoints: the whole ones of one run.
        rules: checked here.
        now: seconds since 1970. A checkpoint from the future counts as young.
        resumable: the newest one that is known to be valid. Without one nothing goes.
        needed: checkpoints that runs pending, running or paused go on from.
        status: the run's status where somebody else asks; the run itself, between two of its saves, passes None.

    Raises:
        UserError: a rule makes no sense, or the budget is smaller than two checkpoints.
    """
    rules.check()
    _demand_room_for_two(checkpoints, rules)
    ordered = sorted(checkpoints, key=lambda checkpoint: (checkpoint.sequence, checkpoint.step))
    if status in UNTOUCHED or resumable is None:
        reason = f"its run is {status}" if status in UNTOUCHED else "no checkpoint is known to be valid"
        return RetentionPlan(tuple((checkpoint, reason) for checkpoint in ordered), ())

    firm = _firm_reasons(ordered, rules, now, resumable, needed)
    soft = {path: reason for path, reason in _soft_reasons(ordered, rules) if path not in firm}
    total = sum(checkpoint.bytes for checkpoint in ordered if checkpoint.path in firm or checkpoint.path in soft)
    sizes = {checkpoint.path: checkpoint.bytes for checkpoint in ordered}
    while rules.budget is not None and total > rules.budget and soft:
        path, _ = soft.popitem()  # the weakest stands last
        total -= sizes[path]
    reasons = {**soft, **firm}
    return RetentionPlan(
        tuple((checkpoint, reasons[checkpoint.path]) for checkpoint in ordered if checkpoint.path in reasons),
        tuple(checkpoint for checkpoint in ordered if checkpoint.path not in reasons),
        0 if rules.budget is None else max(0, total - rules.budget),
    )


def parse_size(text: str | int) -> int:
    """Bytes of a size such as "10GB", "512 MiB" or 1000000; GB is 10⁹, GiB is 2³⁰.

    Raises:
        UserError: it is not a size.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)", str(text).strip())
    if match is None or match[2].upper() not in UNITS:
        raise UserError(f"{text!r} is not a size: write it as 10GB, 512MiB or a number of bytes")
    return int(float(match[1]) * UNITS[match[2].upper()])


def _demand_room_for_two(checkpoints: Sequence[StoredCheckpoint], rules: RetentionRules) -> None:
    largest = max((checkpoint.bytes for checkpoint in checkpoints), default=0)
    if rules.budget is not None and rules.budget < 2 * largest:
        raise UserError(
            f"the budget of {in_words(rules.budget)} is smaller than two checkpoints of {in_words(largest)}: "
            f"set budget to at least {in_words(-(-2 * largest // 10**6) * 10**6) if largest >= 10**6 else 2 * largest}"
        )


def _firm_reasons(
    ordered: list[StoredCheckpoint], rules: RetentionRules, now: float, resumable: Path, needed: Collection[Path]
) -> dict[Path, str]:
    """What the budget cannot touch."""
    reasons = {}
    for checkpoint in ordered:
        if checkpoint.path == resumable:
            reasons[checkpoint.path] = "a resume takes it"
        elif checkpoint.path in needed:
            reasons[checkpoint.path] = "a run goes on from it"
        elif now - checkpoint.time < rules.minimum_age:
            reasons[checkpoint.path] = f"younger than {rules.minimum_age:g} s"
    return reasons


def _soft_reasons(ordered: list[StoredCheckpoint], rules: RetentionRules) -> list[tuple[Path, str]]:
    """What the rules keep, strongest first, each once and for its strongest reason."""
    reasons: dict[Path, str] = {}
    best = {metric: _best(ordered, rules, metric) for metric in _metrics(ordered, rules)}
    for rank in range(rules.keep_best):
        for metric, checkpoints in best.items():
            for checkpoint in checkpoints[rank : rank + 1]:
                reasons.setdefault(checkpoint.path, f"number {rank + 1} by {metric}")
    for checkpoint in reversed(ordered[-rules.keep_last :]):
        reasons.setdefault(checkpoint.path, f"among the last {rules.keep_last}")
    for checkpoint in reversed(_milestones(ordered, rules)):
        reasons.setdefault(checkpoint.path, f"a milestone, the first of its {rules.milestone_every:,} steps")
    return list(reasons.items())


def _metrics(ordered: list[StoredCheckpoint], rules: RetentionRules) -> list[str]:
    """The metric, and that of the same name of each member of a sweep."""
    measured = {name: None for checkpoint in ordered for name in checkpoint.metrics}
    return [name for name in measured if rules.metric and f"/{name}".endswith(f"/{rules.metric}")]


def _best(ordered: list[StoredCheckpoint], rules: RetentionRules, metric: str) -> list[StoredCheckpoint]:
    def rank(checkpoint: StoredCheckpoint) -> tuple[float, int]:
        value = checkpoint.metrics[metric] or 0.0
        newer = checkpoint.sequence if rules.tie == "older" else -checkpoint.sequence
        return (value if rules.mode == "min" else -value, newer)

    measured = [checkpoint for checkpoint in ordered if checkpoint.metrics.get(metric) is not None]
    return sorted(measured, key=rank)[: rules.keep_best]


def _milestones(ordered: list[StoredCheckpoint], rules: RetentionRules) -> list[StoredCheckpoint]:
    """The first of each stretch of `milestone_every` steps. The stretch that begins at step 0 has none."""
    if rules.milestone_every is None:
        return []
    first: dict[int, StoredCheckpoint] = {}
    for checkpoint in sorted(ordered, key=lambda checkpoint: checkpoint.step):
        stretch = checkpoint.step // rules.milestone_every
        if stretch > 0:
            first.setdefault(stretch, checkpoint)
    return sorted(first.values(), key=lambda checkpoint: checkpoint.step)
