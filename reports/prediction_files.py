"""Predictions as JSON, JSON lines and CSV, for other programs."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable, Iterable
from dataclasses import asdict, fields
from typing import Any

from run_store import atomic_file
from run_store.predictions import Prediction
from run_store.predictions.rows import finite

Source = Callable[[], Iterable[Prediction]]
"""Gives the same predictions at each call."""


def as_json(content: Any) -> str:
    """JSON to print. A number that is not finite becomes null, which JSON has in place of NaN."""
    return json.dumps(finite(content), indent=1)


def write_jsonl(path: str | os.PathLike[str], source: Source) -> int:
    """Writes a line of JSON for each prediction, with the names of `Prediction`, and returns how many there are.

    Raises:
        UserError: the file cannot be written.
    """
    count = 0
    with atomic_file(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for prediction in source():
            file.write(json.dumps(finite(asdict(prediction)), ensure_ascii=False) + "\n")
            count += 1
    return count


def write_csv(path: str | os.PathLike[str], source: Source) -> int:
    """Writes a row for each prediction, and returns how many there are.

    The columns are those of `Prediction`, with `prediction` as JSON and, in place of `scores`, `score.NAME` for each
    score that there is. What is missing, and a score that is not finite, is an empty field.

    Raises:
        UserError: the file cannot be written.
    """
    scores = list(dict.fromkeys(name for prediction in source() for name in prediction.scores))
    plain = [field.name for field in fields(Prediction) if field.name != "scores"]
    count = 0
    with atomic_file(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*plain, *(f"score.{name}" for name in scores)])
        for prediction in source():
            content = asdict(prediction) | {"prediction": json.dumps(prediction.prediction, ensure_ascii=False)}
            values = finite({name: prediction.scores.get(name) for name in scores})
            writer.writerow([*(content[name] for name in plain), *values.values()])
            count += 1
    return count
