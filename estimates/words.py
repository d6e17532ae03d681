"""A forecast for a person, and for programs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from run_store.checkpoints import in_words

if TYPE_CHECKING:
    from estimates.forecast import Forecast, Part


def duration(seconds: float) -> str:
    """For a person: "1 h 05 min", "2 min 30 s", "4.2 s"."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    if seconds < 3600:
        minutes, rest = divmod(round(seconds), 60)
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours:,} h {minutes:02d} min"


def as_text(forecast: Forecast) -> str:
    """The table: each figure and how it was derived."""
    size = [(part.name, in_words(round(part.amount)), part.how) for part in _held(forecast)]
    disk = [(part.name, in_words(round(part.amount)), part.how) for part in (*forecast.stores, *forecast.files)]
    counts = forecast.counts
    speed = (f"{forecast.paced_in}/s", f"{forecast.rate:,.0f}", "while training, validations and saves left out")
    total = ("wall time", duration(forecast.seconds), f"{counts.steps:,} of {counts.total_steps:,} optimiser steps")
    whole = ("disk at the end", in_words(round(forecast.bytes)), "new files of this job, in all")
    rows = [
        total,
        *_inner((part.name, duration(part.amount), part.how) for part in forecast.times),
        speed,
        *size,
        whole,
        *_inner(disk),
    ]
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    return "\n".join(f"{name:<{widths[0]}}  {value:>{widths[1]}}  {how}".rstrip() for name, value, how in rows)


def as_plain(forecast: Forecast, refused: Sequence[str]) -> dict[str, Any]:
    """All of it as JSON holds it: seconds and bytes."""
    counts = forecast.counts
    return {
        "fits": not refused,
        "refusals": list(refused),
        "seconds": forecast.seconds,
        "training_seconds": forecast.training,
        "rate": forecast.rate,
        "paced_in": forecast.paced_in,
        "steps": counts.steps,
        "total_steps": counts.total_steps,
        "validations": counts.validations,
        "saves": len(counts.saved),
        "host_bytes": round(forecast.host.amount),
        "device_bytes": None if forecast.device is None else round(forecast.device.amount),
        "disk_bytes": round(forecast.bytes),
        "most_run_bytes": round(forecast.most_files),
        "times": [asdict(part) for part in forecast.times],
        "memory": [asdict(part) for part in _held(forecast)],
        "disk": [asdict(part) for part in (*forecast.stores, *forecast.files)],
    }


def _held(forecast: Forecast) -> list[Part]:
    return [forecast.host] if forecast.device is None else [forecast.host, forecast.device]


def _inner(rows: Iterable[tuple[str, str, str]]) -> list[tuple[str, str, str]]:
    return [(f"  {name}", value, how) for name, value, how in rows]
