from __future__ import annotations

from typing import Any

from reports.prediction_comparison import differences, pair_up, side_by_side
from reports.prediction_lines import gist_of, lines_of
from tests.run_store.predictions.records import prediction

LATENTS: dict[str, Any] = {
    "kind": "latents",
    "tokens": [{"text": "def", "error": 0.12, "latents": [[1234, 4.5], [7, 1.25]]}, {"text": " f", "latents": []}],
    "continuation": {"original": "():\n", "spliced": ""},
}


def found(text: str, score: float, relevant: bool = False) -> dict[str, Any]:
    retrieved = [{"text": text, "score": score, "relevant": relevant}, {"text": "other", "score": 0.1}]
    return {"kind": "retrieval", "retrieved": retrieved}


def changed(left: dict[str, Any], right: dict[str, Any]) -> list[str]:
    (pair,) = pair_up([prediction(prediction=left)], [prediction(prediction=right)])
    return [difference.label for difference in differences(pair) if difference.changed]


def test_a_retrieval_in_words() -> None:
    one = prediction(prediction=found("a\nb", 0.5, True), scores={"rank": 3, "margin": float("nan")})
    texts = ["rank 3", "margin nan", "retrieved 1 0.500 ✓ a⏎b", "retrieved 2 0.100 other"]
    assert [f"{line.label} {line.text}" for line in lines_of(one)] == texts
    assert gist_of(one) == "0.500 ✓ a⏎b"


def test_latents_in_words() -> None:
    texts = {line.label: line.text for line in lines_of(prediction(prediction=LATENTS, scores={}))}
    tokens = {"token 0": "'def' 1234:4.5 7:1.25 error 0.12", "token 1": "' f' "}
    assert texts == {"original": "():⏎", "spliced": "", **tokens}


def test_an_unknown_or_broken_kind_is_plain_json() -> None:
    for content in ({"kind": "new"}, {"kind": "retrieval"}, {"kind": []}, {}, {"kind": "latents", "tokens": 3}):
        lines = lines_of(prediction(prediction=content, scores={}))
        assert all(line.label.startswith("prediction") for line in lines)
        assert lines
    assert lines_of(prediction(prediction={"a": {"b": [1]}}, scores={}))[0][:2] == ("prediction.a.b", "[1]")


def test_words_and_latents_count_as_change_and_their_strength_does_not() -> None:
    assert changed(found("a", 0.5), found("a", 0.7)) == []
    assert changed(found("a", 0.5), found("b", 0.5)) == ["retrieved 1"]
    stronger = {**LATENTS, "tokens": [{"text": "def", "error": 0.2, "latents": [[1234, 5.0], [7, 1.0]]}]}
    assert changed(LATENTS, stronger) == ["token 1"], "which is gone"
    others = {**stronger, "tokens": [{"text": "def", "latents": [[7, 5.0], [1234, 1.0]]}]}
    assert changed(stronger, others) == ["token 0"]


def test_samples_are_told_by_their_prompt() -> None:
    left = [prediction(sample, prompt=text) for sample, text in enumerate(["a", "b", "b", "c"])]
    right = [prediction(sample, prompt=text) for sample, text in enumerate(["b", "d", "a", "b"])]
    pairs = [(one and one.sample_index, other and other.sample_index) for one, other in pair_up(left, right)]
    assert pairs == [(0, 2), (1, 0), (2, 3), (3, None), (None, 1)]
    assert pair_up([], []) == []


def test_the_last_look_at_a_sample_counts() -> None:
    (pair,) = pair_up([prediction(0, 30), prediction(0, 10)], [prediction(0, 20)])
    assert (pair.left and pair.left.step, pair.right and pair.right.step) == (30, 20)


def test_members_are_told_apart_where_there_are_several() -> None:
    both = [prediction(member=name) for name in ("k16", "k32")]
    assert [pair.sample.member for pair in pair_up(both, both)] == ["k16", "k32"]
    ((left, right),) = pair_up([prediction(member="k16")], [prediction()])
    assert left is not None
    assert right is not None


def test_side_by_side_keeps_to_the_width() -> None:
    left = prediction(prompt="word " * 40, ground_truth="truth", prediction=found("long " * 30, 0.5))
    lines = list(side_by_side(pair_up([left], []), ("left", "right"), 80))
    assert max(map(len, lines)) <= 80
    assert "ground truth: truth" in lines
    assert lines[-1] == "1 samples, 1 changed (* marks what did)"
    assert sum(line.startswith("*") for line in lines) == 3
