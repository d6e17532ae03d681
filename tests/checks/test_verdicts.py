"""What figures and their limits come to, without a model."""

import json
import math

import pytest
import torch
from torch.nn.functional import normalize

from checks import Figure, Limits, Verdict, as_json, as_text
from checks.convergence import verdict_on as verdict_on_losses
from checks.quality import verdict_on as verdict_on_embeddings


@pytest.mark.parametrize(
    ("value", "limits", "fails"),
    [
        (2.0, {"at_most": 1.0}, True),
        (1.0, {"at_most": 1.0}, False),
        (1.0, {"at_least": 2.0}, True),
        (2.0, {"at_least": 2.0}, False),
        (math.nan, {"at_most": 1.0}, True),
        (math.nan, {"at_least": 1.0}, True),
        (math.nan, {}, False),
        ("float32", {}, False),
    ],
)
def test_a_figure_fails_beyond_its_limit(value, limits, fails):
    assert (Figure("it", value, **limits).failure is not None) == fails


def test_a_failure_names_figure_value_and_limit():
    figure = Figure("single text, mean", 63.125, "ms", at_most=50.0, setting="limits.single_ms")
    assert figure.failure == "single text, mean is 63.12 ms, more than limits.single_ms 50"


def test_what_was_not_run_has_not_passed():
    verdict = Verdict.not_run("quality", "there is no model")
    assert not verdict.passed
    assert json.loads(as_json([verdict]))["passed"] is False
    assert "quality: not run" in as_text([verdict])
    assert "there is no model" in as_text([verdict])


def test_numbers_that_json_has_not_are_strings():
    verdict = Verdict.of("convergence", [Figure("loss", math.nan), Figure("row", (1.0, math.inf))])
    assert [f["value"] for f in json.loads(as_json([verdict]))["parts"][0]["figures"]] == ["nan", [1.0, "inf"]]


# ---- losses


@pytest.mark.parametrize(
    ("losses", "sentence"),
    [
        ([1.0, 0.9, 0.8, 0.7], None),
        ([1.0, 0.1, 0.0, 0.0], None),
        ([1.0, 0.9, 0.95, 0.7], "did not fall in epoch 2"),
        ([1.0, 0.9, 0.9, 0.7], "did not fall in epoch 2"),
        ([1.0, 0.97, 0.95, 0.9], "share the loss fell by is 0.1"),
        ([1.0, math.nan, math.nan, math.nan], "did not fall in epoch 1"),
        ([0.0, 0.0, 0.0, 0.0], "before training and cannot fall"),
    ],
)
def test_the_loss_must_fall_in_every_epoch_and_by_a_share(losses, sentence):
    verdict = verdict_on_losses(losses, 1.0, Limits())
    assert verdict.passed == (sentence is None)
    assert sentence is None or sentence in " ".join(verdict.failures)


# ---- embeddings


def embeddings(angles):
    angles = torch.tensor(angles, dtype=torch.float64)
    return torch.stack([angles.cos(), angles.sin()], dim=1)


GOOD = embeddings([0.0, 0.1, 1.0, 1.1, 2.0])


def test_good_embeddings_pass_and_show_all_cosines():
    verdict = verdict_on_embeddings(GOOD, 2, True, Limits())
    assert verdict.passed
    rows = [figure.value for figure in verdict.figures if isinstance(figure.value, tuple)]
    expected = [[float(torch.dot(x, y)) for y in GOOD] for x in GOOD]
    torch.testing.assert_close(torch.tensor(rows), torch.tensor(expected))


@pytest.mark.parametrize(
    ("vectors", "width", "sentence"),
    [
        (GOOD, 3, "dimension is 2, less than the encoder's width 3"),
        (GOOD * 1.01, 2, "norm, furthest from 1 is 0.01"),
        (embeddings([0.0, 1.0, 1.0, 1.1, 2.0]), 2, "are no nearer than unlike"),
        (embeddings([0.0] * 5), 2, "are no nearer than unlike"),
        (GOOD * math.nan, 2, "norm, furthest from 1 is nan"),
    ],
)
def test_what_is_wrong_with_embeddings_is_told(vectors, width, sentence):
    verdict = verdict_on_embeddings(vectors, width, True, Limits())
    assert sentence in " ".join(verdict.failures)


def test_norms_are_free_where_the_encoder_does_not_normalise():
    scaled = GOOD * torch.tensor([[0.1], [5.0], [2.0], [30.0], [1.0]], dtype=torch.float64)
    verdict = verdict_on_embeddings(scaled, 2, False, Limits())
    assert verdict.passed
    assert "norm, furthest from 1" not in [figure.name for figure in verdict.figures]
    torch.testing.assert_close(
        torch.tensor(verdict.figures[-1].value),
        normalize(scaled, dim=1)[-1].float() @ normalize(scaled, dim=1).float().T,
    )
