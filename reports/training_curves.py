"""The curves of a training, from what its folder keeps: TensorBoard's events, else the table of the CSV logger, else
what was measured on its checkpoints.
"""

from __future__ import annotations

import csv
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from run_store.checkpoints import list_checkpoints
from run_store.layout import CHECKPOINTS_NAME

EVENTS = "events.out.tfevents.*"
TABLES = "metrics*.csv"
MOST_POINTS = 400


class Curve(NamedTuple):
    """A metric over optimiser steps."""

    name: str
    steps: tuple[int, ...]
    """Ascending."""
    values: tuple[float, ...]

    def scaled(self, factor: float) -> Curve:
        """In another unit."""
        return self._replace(values=tuple(factor * value for value in self.values))


def read_curves(run: Path, names: Iterable[str], prefix: str = "") -> list[Curve]:
    """Those that there are of the metrics that are named, in their order, each of at most MOST_POINTS points.

    Args:
        run: its folder.
        names: such as `val/fvu`.
        prefix: of a sweep's member, such as `k32/`.
    """
    for read in (_of_events, _of_tables, _of_checkpoints):
        points = read(run)
        curves = [_curve(name, points[prefix + name]) for name in names if points.get(prefix + name)]
        if curves:
            return curves
    return []


def _curve(name: str, points: dict[int, float]) -> Curve:
    steps = sorted(points)
    # the last of each stretch, so that the curve ends where the training did
    every = -(-len(steps) // MOST_POINTS)
    steps = steps[::-1][::every][::-1]
    return Curve(name, tuple(steps), tuple(points[step] for step in steps))


def _of_events(run: Path) -> dict[str, dict[int, float]]:
    files = sorted(run.rglob(EVENTS))
    if not files:
        return {}
    # imported here: it takes a while, and most runs that are looked at have such files but some have none
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    points: dict[str, dict[int, float]] = defaultdict(dict)
    for folder in sorted({file.parent for file in files}):
        events = EventAccumulator(str(folder), size_guidance={"scalars": 0, "histograms": 1, "tensors": 1, "images": 1})
        events.Reload()
        for name in events.Tags()["scalars"]:
            for event in events.Scalars(name):
                _keep(points, name, event.step, event.value)
    return points


def _of_tables(run: Path) -> dict[str, dict[int, float]]:
    points: dict[str, dict[int, float]] = defaultdict(dict)
    for file in sorted(run.rglob(TABLES)):
        with file.open(newline="", encoding="utf-8") as lines:
            for name, step, value in _cells(csv.DictReader(lines)):
                _keep(points, name, step, value)
    return points


def _cells(rows: Iterable[dict[str, str]]) -> Iterator[tuple[str, int, float]]:
    for row in rows:
        for name, text in row.items():
            try:
                yield name, int(float(row["step"])), float(text)
            except (KeyError, TypeError, ValueError):
                continue  # a metric that was not logged at this step, or a line that was cut short


def _of_checkpoints(run: Path) -> dict[str, dict[int, float]]:
    points: dict[str, dict[int, float]] = defaultdict(dict)
    for checkpoint in list_checkpoints(run / CHECKPOINTS_NAME):
        for name, value in checkpoint.metrics.items():
            if value is not None:
                _keep(points, name, checkpoint.step, value)
    return points


def _keep(points: dict[str, dict[int, float]], name: str, step: int, value: float) -> None:
    if math.isfinite(value):
        points[name][step] = value
