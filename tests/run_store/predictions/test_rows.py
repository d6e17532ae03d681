from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from run_store.predictions.rows import to_prediction, to_row
from tests.run_store.predictions.records import prediction

TEXT = st.text()
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner),
    max_leaves=4,
)


@settings(max_examples=50)
@given(st.dictionaries(TEXT, JSON), st.dictionaries(TEXT, st.floats()), TEXT)
def test_what_is_read_is_what_was_written(content: dict[str, Any], scores: dict[str, float], prompt: str) -> None:
    written = prediction(prediction=content, scores=scores, prompt=prompt, created_at="2026")
    row = to_row(written)
    for text in row:
        if isinstance(text, str):
            text.encode("utf-8")  # what SQLite will do
    read = to_prediction(row)
    assert to_row(read) == row
    assert read.prediction == json.loads(json.dumps(content), parse_constant=lambda _: None)
    assert read.scores.keys() == scores.keys()
    for name, value in scores.items():
        assert read.scores[name] == value or (math.isnan(read.scores[name]) and not math.isfinite(value))


def test_lone_surrogates_are_replaced() -> None:
    read = to_prediction(to_row(prediction(prompt="a\udc80", prediction={"text": "\ud800b"})))
    assert (read.prompt, read.prediction) == ("a?", {"text": "?b"})


def test_numbers_that_are_not_finite_become_null_and_nan() -> None:
    read = to_prediction(to_row(prediction(prediction={"values": (math.inf, 1.5)}, scores={"margin": math.inf})))
    assert read.prediction == {"values": [None, 1.5]}
    assert math.isnan(read.scores["margin"])


def test_a_moment_is_set_when_none_is_given() -> None:
    assert to_prediction(to_row(prediction())).created_at > "2026"


def test_what_json_cannot_hold_is_a_bug() -> None:
    with pytest.raises(TypeError):
        to_row(prediction(prediction={"text": object()}))
