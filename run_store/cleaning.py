"""Which runs may go: pure rules over what was found."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

from run_store.listing import FoundRun
from run_store.record import Status
from run_store.retention import UNTOUCHED


@dataclass(frozen=True)
class RunRules:
    """What stays.

    Attributes:
        keep_last: the newest runs of each identity, whatever their status.
        minimum_age_days: since a run ended, or was created.
        statuses: those in which a run may go at all.
    """

    keep_last: int = 1
    minimum_age_days: float = 0
    statuses: tuple[Status, ...] = ("failed", "interrupted")


def plan_cleaning(runs: Iterable[FoundRun], rules: RunRules, now: datetime | None = None) -> list[FoundRun]:
    """The runs that may go, oldest first.

    A run that is pending, initialising, running or paused stays, and so does one whose weights an unfinished run began
    with, since that one begins there again until it has saved something itself.
    """
    runs = list(runs)
    oldest = (now or datetime.now(timezone.utc)) - timedelta(days=rules.minimum_age_days)
    needed = {
        Path(run.record.lineage.parent_checkpoint).resolve().parent.parent
        for run in runs
        if run.record.lineage.parent_checkpoint is not None and run.status in {*UNTOUCHED, "interrupted", "failed"}
    }
    groups: dict[Path, list[FoundRun]] = defaultdict(list)
    for run in sorted(runs, key=lambda run: (run.record.created, run.record.id), reverse=True):
        groups[run.folder.parent].append(run)
    may_go = [
        run
        for group in groups.values()
        for run in group[rules.keep_last :]
        if run.status in rules.statuses
        and run.status not in UNTOUCHED
        and run.folder.resolve() not in needed
        and datetime.fromisoformat(run.record.ended or run.record.created) <= oldest
    ]
    return sorted(may_go, key=lambda run: (run.record.created, run.record.id))
