import math

import pytest

from lightning_modules.functional import collapse_sentence


@pytest.mark.parametrize(
    ("figures", "told"),
    [
        ((0.995, 50.0), "a mean cosine of 0.9950 (limit 0.99);"),
        ((0.5, 1.25), ": the effective rank is 1.25 (limit 2);"),
        ((0.99, 2.0), "a mean cosine of 0.9900 (limit 0.99) and the effective rank is 2.00 (limit 2);"),
        ((None, 1.0), "the effective rank is 1.00"),
        ((math.nan, 1.0), "the effective rank is 1.00"),
    ],
)
def test_the_sentence_tells_figures_and_limits(figures, told):
    sentence = collapse_sentence(*figures, 0.99, 2.0)
    assert told in sentence
    assert "lower the learning rate" in sentence


@pytest.mark.parametrize("figures", [(0.9, 40.0), (math.nan, math.nan), (None, None)])
def test_healthy_or_unknown_embeddings_are_let_be(figures):
    assert collapse_sentence(*figures, 0.99, 2.0) is None


def test_a_limit_can_be_left_out():
    assert collapse_sentence(0.999, 50.0, None, 2.0) is None
    assert collapse_sentence(0.5, 1.0, 0.99, None) is None
