"""What is best, as a person says it on the command line."""

from __future__ import annotations

import math
from collections.abc import Sequence

from run_store import UserError
from run_store.selection import Bounds, Criterion, Direction, TieBreak


def criterion_of(
    metrics: Sequence[str],
    direction: Direction,
    at_least: Sequence[str],
    at_most: Sequence[str],
    tie_break: TieBreak,
) -> Criterion:
    """The criterion.

    Args:
        metrics: NAME or NAME=WEIGHT; of several the weighted sum counts.
        direction: whether the lowest or the highest is the best.
        at_least: NAME=VALUE that must be reached.
        at_most: NAME=VALUE that must not be exceeded.
        tie_break: which of several equally good runs.

    Raises:
        UserError: naming the setting.
    """
    return Criterion(weights(metrics), direction, bounds(at_least, at_most), tie_break)


def weights(metrics: Sequence[str]) -> dict[str, float]:
    """Weight by metric, from NAME and NAME=WEIGHT.

    Raises:
        UserError: none is named, one twice, or a weight is no number.
    """
    if not metrics:
        raise UserError("metric is empty: name what is best, as in --metric val/fvu")
    found: dict[str, float] = {}
    for text in metrics:
        name, equals, weight = text.partition("=")
        if name in found:
            raise UserError(f"metric names {name} twice: name each metric once")
        found[name] = _number("metric", text, weight) if equals else 1.0
    return found


def bounds(at_least: Sequence[str], at_most: Sequence[str]) -> dict[str, Bounds]:
    """Bounds by metric.

    Raises:
        UserError: one is not NAME=VALUE.
    """
    low, high = _values("at_least", at_least), _values("at_most", at_most)
    return {name: Bounds(low.get(name), high.get(name)) for name in low | high}


def _values(setting: str, texts: Sequence[str]) -> dict[str, float]:
    named = (text.partition("=") for text in texts)
    return {name: _number(setting, f"{name}{equals}{value}", value) for name, equals, value in named}


def _number(setting: str, text: str, number: str) -> float:
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or "=" not in text:
        raise UserError(f"{setting} is {text!r}: write NAME=NUMBER, as in val/l0=40")
    return value
