"""Runs side by side: the settings in which they differ, and their metrics."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from reports.text_columns import table
from run_store.listing import FoundRun
from run_store.record import RunRecord

NOTHING = "–"


@dataclass(frozen=True)
class RunComparison:
    """What several runs have, one value each.

    Attributes:
        settings: those in which they differ; None where a run has no such setting.
        metrics: all of them; None where a run has not measured it.
        source: of the settings: `config`, what each run was last started with, or `record`, what its identity is made
            of, where one of them has no config.
    """

    settings: dict[str, list[Any]]
    metrics: dict[str, list[float | None]]
    source: str


def compared(runs: Sequence[FoundRun]) -> RunComparison:
    """Puts runs side by side."""
    records = [run.record for run in runs]
    configs = [_config(record) for record in records]
    whole = [config for config in configs if config is not None]
    is_whole = len(whole) == len(records)
    flat = [_flat(one) for one in (whole if is_whole else map(_identity, records))]
    names = sorted({name for settings in flat for name in settings})
    values = {name: [settings.get(name) for settings in flat] for name in names}
    differing = {name: found for name, found in values.items() if any(value != found[0] for value in found)}
    measured = sorted({name for record in records for name in record.metrics})
    metrics = {name: [record.metrics.get(name) for record in records] for name in measured}
    return RunComparison(differing, metrics, "config" if is_whole else "record")


def as_table(comparison: RunComparison, titles: Sequence[str], width: int) -> Iterator[str]:
    """Lines for a terminal.

    Args:
        comparison: of the runs.
        titles: of the runs, in the same order.
        width: cells in a line.
    """
    parts = {
        "setting": {name: [_word(value) for value in values] for name, values in comparison.settings.items()},
        "metric": {name: [_number(value) for value in values] for name, values in comparison.metrics.items()},
    }
    nothing = {"setting": "the settings are the same", "metric": "nothing was measured"}
    for kind, rows in parts.items():
        if rows:
            yield from table([kind, *titles], [[name, *row] for name, row in rows.items()], width, elastic=len(titles))
        else:
            yield nothing[kind]
        if kind == "setting":
            yield ""


def _config(record: RunRecord) -> Any:
    """The settings of the last attempt; None where they cannot be read."""
    path = Path(record.folder, f"config.{len(record.attempts)}.yaml")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return None
    return content if isinstance(content, Mapping) else None


def _identity(record: RunRecord) -> dict[str, Any]:
    return {"spec": record.spec, "execution": record.execution}


def _flat(settings: Any, prefix: str = "") -> dict[str, Any]:
    """`a.b.c` → value. What is null is as good as left out; items of lists are told by their number."""
    if isinstance(settings, list) and any(isinstance(item, Mapping) for item in settings):
        settings = dict(enumerate(settings))
    if not isinstance(settings, Mapping):
        return {} if settings is None else {prefix.removesuffix("."): settings}
    return {name: value for key, inner in settings.items() for name, value in _flat(inner, f"{prefix}{key}.").items()}


def _word(value: Any) -> str:
    if value is None:
        return NOTHING
    return value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)


def _number(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.6g}"
