"""Verdicts as a table for a person and as JSON for a machine."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

from checks.verdict import Figure, Verdict


def as_text(verdicts: Sequence[Verdict]) -> str:
    """One table: each part with its verdict, its figures beside their limits, and what is wrong with it."""
    figures = [figure for verdict in verdicts for figure in verdict.figures]
    names = max((len(figure.name) for figure in figures), default=0)
    # hashes stand beside no limit and may stick out
    values = max((len(figure.shown) for figure in figures if _limit(figure)), default=0)
    lines: list[str] = []
    for verdict in verdicts:
        lines.append(f"{verdict.part}: {_in_a_word(verdict)}")
        for figure in verdict.figures:
            lines.append(f"  {figure.name:<{names}}  {figure.shown:<{values}}  {_limit(figure)}".rstrip())
        lines += [f"  ! {failure}" for failure in verdict.failures]
    passed = sum(verdict.passed for verdict in verdicts)
    return "\n".join([*lines, f"{passed} of {len(verdicts)} parts passed"])


def as_json(verdicts: Sequence[Verdict]) -> str:
    """`{"passed": …, "parts": [{"part": …, "passed": …, "ran": …, "figures": […], "failures": […]}]}`; a number that is
    not finite is a string, as JSON has none.
    """
    parts = [
        {
            "part": verdict.part,
            "passed": verdict.passed,
            "ran": verdict.ran,
            "figures": [_plain(figure) for figure in verdict.figures],
            "failures": list(verdict.failures),
        }
        for verdict in verdicts
    ]
    return json.dumps({"passed": all(verdict.passed for verdict in verdicts), "parts": parts}, allow_nan=False)


def _in_a_word(verdict: Verdict) -> str:
    return "passed" if verdict.passed else "failed" if verdict.ran else "not run"


def _limit(figure: Figure) -> str:
    limits = [("at most", figure.at_most), ("at least", figure.at_least)]
    return ", ".join(f"{name} {limit:g}" for name, limit in limits if limit is not None)


def _plain(figure: Figure) -> dict[str, Any]:
    limits = {"at_most": figure.at_most, "at_least": figure.at_least, "setting": figure.setting}
    given = {name: limit for name, limit in limits.items() if limit is not None}
    value = figure.value
    finite = [_finite(one) for one in value] if isinstance(value, tuple) else _finite(value)
    return {"name": figure.name, "value": finite, "unit": figure.unit, **given}


def _finite(value: float | str) -> float | str:
    return value if isinstance(value, str) or math.isfinite(value) else str(value)
