"""Predictions as rows of a table, and back."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from run_store.predictions.records import Prediction, storable, utc_now

COLUMNS = (
    "run_id",
    "member",
    "epoch",
    "step",
    "sample_index",
    "prompt",
    "ground_truth",
    "prediction",
    "scores",
    "user_id",
    "job_id",
    "created_at",
)
"""In the order of `Prediction`."""

Row = tuple[str | int | None, ...]


def to_row(prediction: Prediction) -> Row:
    """The values of COLUMNS.

    Raises:
        TypeError: prediction holds what JSON cannot.
    """
    return (
        prediction.run_id,
        storable(prediction.member),
        prediction.epoch,
        prediction.step,
        prediction.sample_index,
        storable(prediction.prompt),
        None if prediction.ground_truth is None else storable(prediction.ground_truth),
        _as_json(finite(prediction.prediction)),
        _as_json({name: finite(float(value)) for name, value in prediction.scores.items()}),
        prediction.user_id,
        prediction.job_id,
        prediction.created_at or utc_now(),
    )


def to_prediction(row: Sequence[Any]) -> Prediction:
    """The record whose `to_row` this is."""
    values = dict(zip(COLUMNS, row, strict=True))
    scores = {name: math.nan if value is None else value for name, value in json.loads(values["scores"]).items()}
    return Prediction(**{**values, "prediction": json.loads(values["prediction"]), "scores": scores})


def finite(value: Any) -> Any:
    """The same JSON with null for every number that is not finite, which JSON does not know."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {name: finite(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [finite(inner) for inner in value]
    return value


def _as_json(content: Any) -> str:
    return storable(json.dumps(content, ensure_ascii=False))
