"""What the trials of a search came to."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from run_store import UserError
from run_store.completion import completion_of
from run_store.layout import METADATA_NAME, variant_folders
from run_store.locks import holder_of
from run_store.record import read_record
from run_store.selection import Candidate, Criterion, Selection
from search.trials import Trial


@dataclass(frozen=True)
class Outcome:
    """Of one trial.

    Attributes:
        trial: which.
        identity: fingerprints of its training.
        run: folder of the complete run that trained it; None when it failed.
        member: its name in that run, when others were trained there as well.
        created: of the run, ISO 8601 in UTC.
        step: optimiser steps of the run.
        metrics: the last value of each, of a member its own.
        reason: why it failed.
    """

    trial: Trial
    identity: tuple[str, str]
    run: Path | None = None
    member: str | None = None
    created: str = ""
    step: int = 0
    metrics: Mapping[str, float] = field(default_factory=dict)
    reason: str = ""

    @property
    def candidate(self) -> Candidate:
        """To select from."""
        return Candidate(self.trial.name, self.created, self.step, self.metrics)


def outcome_of(trial: Trial, identity: tuple[str, str], run: Path, member: str | None = None) -> Outcome:
    """Of a trial whose run is complete.

    Raises:
        UserError: the record of the run is damaged.
    """
    record = read_record(run)
    prefix = f"{member}/" if member else ""
    own = {name.removeprefix(prefix): value for name, value in record.metrics.items() if name.startswith(prefix)}
    return Outcome(trial, identity, run, member, record.created, record.progress.step, own)


def complete_run(folder: Path) -> Path | None:
    """The newest complete run of an identity.

    Raises:
        UserError: a living process works on the newest one.
    """
    variants = variant_folders(folder)
    if variants and (holder := holder_of(variants[-1])):
        raise UserError(
            f"{holder} is working on {variants[-1]}, a trial of this search: wait for it to end, or stop it"
        )
    return next((variant for variant in reversed(variants) if completion_of(variant).complete), None)


def why_failed(folder: Path, code: int, log: Path | None) -> str:
    """Why a training ended badly: what its record says, else the last line that it printed.

    Args:
        folder: of all runs of its identity.
        code: of its process.
        log: what it printed.
    """
    if code < 0:
        return f"its process was killed by signal {-code}"
    variants = variant_folders(folder)
    if variants and (variants[-1] / METADATA_NAME).exists() and (error := read_record(variants[-1]).error):
        return f"{error.kind}: {' '.join(error.message.split())}"
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n") if log is not None and log.exists() else []
    last = next((line.strip() for line in reversed(lines) if line.strip()), "")
    return last.removeprefix("error: ") or f"its process ended with code {code}"


def as_table(outcomes: Sequence[Outcome], criterion: Criterion, selection: Selection) -> str:
    """A row a trial: its settings, what it is judged by, and why it is not the best."""
    settings = list(dict.fromkeys(name for outcome in outcomes for name in outcome.trial.settings))
    metrics = list(dict.fromkeys([*criterion.metrics, *criterion.thresholds]))
    rows = [["trial", *settings, *metrics, ""]]
    for outcome in outcomes:
        values = [_shown(outcome.trial.settings.get(name)) for name in settings]
        measured = [f"{outcome.metrics[name]:.6g}" if name in outcome.metrics else "–" for name in metrics]
        rows.append([str(outcome.trial.number), *values, *measured, _verdict(outcome, selection)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(_line(row, widths) for row in rows)


def as_json(outcomes: Iterable[Outcome], selection: Selection) -> list[dict[str, Any]]:
    """The same as plain values; a metric that is not finite is null."""
    return [
        {
            "number": outcome.trial.number,
            "name": outcome.trial.name,
            "settings": dict(outcome.trial.settings),
            "status": "failed" if outcome.run is None else "complete",
            "run": None if outcome.run is None else str(outcome.run),
            "member": outcome.member,
            "metrics": {name: value if math.isfinite(value) else None for name, value in outcome.metrics.items()},
            "verdict": _verdict(outcome, selection),
        }
        for outcome in outcomes
    ]


def _verdict(outcome: Outcome, selection: Selection) -> str:
    if outcome.run is None:
        return f"failed: {outcome.reason}"
    return "best" if outcome.trial.name == selection.best else selection.rejected.get(outcome.trial.name, "")


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return str(value.get("class_path", value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _line(row: list[str], widths: list[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
