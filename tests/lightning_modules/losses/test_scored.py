"""Losses on scores against loops over pairs."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_modules.losses import AnglE, CoSENT, MarginMSE
from run_store import UserError
from tests.lightning_modules.losses.batches import (
    agree,
    batch,
    batches,
    distinct,
    extremes,
    gradcheck,
    order_says_nothing,
    scale_says_nothing,
    value_and_gradient,
)


def naive_order(similarity, temperature):
    def loss(some):
        s = [similarity(some.texts[a], some.texts[p]) for a, p in zip(some.anchors, some.positives, strict=True)]
        total = 1 + 0 * some.texts.sum()
        for i, lower in enumerate(some.scores):
            for j, higher in enumerate(some.scores):
                if lower < higher:
                    total = total + ((s[i] - s[j]) / temperature).exp()
        return total.log()

    return loss


def cosine(x, y):
    return x @ y / (x.norm() * y.norm())


def angle(x, y):
    """By complex division: the quotient's parts, each times |y_k|², over the norms."""
    half = len(x) // 2
    x, y = torch.complex(x[:half], x[half:]), torch.complex(y[:half], y[half:])
    parts = torch.view_as_real(x / y * (y * y.conj()))
    return (parts.sum() / (x.abs().square().sum().sqrt() * y.abs().square().sum().sqrt())).abs()


def naive_margins(similarity):
    def loss(some):
        total = 0 * some.texts.sum()
        for row, (a, p) in enumerate(zip(some.anchors, some.positives, strict=True)):
            own = [(k, n) for k, n in enumerate(some.negatives[row]) if n >= 0 and n != p]
            for k, n in own:
                margin = similarity(some.texts[a], some.texts[p]) - similarity(some.texts[a], some.texts[n])
                wanted = some.scores[row, 0] - some.scores[row, 1 + k]
                total = total + (margin - wanted) ** 2 / len(own)
        return total / len(some.anchors)

    return loss


LOSSES = {
    "CoSENT": (CoSENT(0.2), naive_order(cosine, 0.2), "pairs"),
    "AnglE": (AnglE(0.2), naive_order(angle, 0.2), "pairs"),
    "MarginMSE": (MarginMSE(), naive_margins(torch.dot), "teacher"),
    "MarginMSE of cosines": (MarginMSE("cosine"), naive_margins(cosine), "teacher"),
}
each = pytest.mark.parametrize("name", LOSSES)
BY_SCALE = ("MarginMSE",)


@pytest.mark.first_is_fast
@each
@given(st.data())
@settings(max_examples=25, deadline=None)
def test_value_and_gradient_are_those_of_a_loop_whatever_the_order(name, data):
    loss, naive, scores = LOSSES[name]
    some = data.draw(batches(scores))
    agree(value_and_gradient(loss, some), value_and_gradient(naive, some))
    order_says_nothing(loss, some, data.draw(st.integers(0, 99)))
    if name not in BY_SCALE:
        scale_says_nothing(loss, some)


@each
def test_gradcheck(name):
    loss, _, scores = LOSSES[name]
    assert gradcheck(loss, distinct(b=4, n=2, scores=scores))


@pytest.mark.parametrize("name", [name for name in LOSSES if name not in BY_SCALE])
def test_extremes(name):
    loss, _, scores = LOSSES[name]
    extremes(loss, batch(scores=scores))


def test_zero_vectors_give_no_nan_by_dot_product():
    some = batch(scores="teacher")
    value, gradient = value_and_gradient(MarginMSE(), some._replace(texts=torch.zeros_like(some.texts)))
    assert value.isfinite()
    assert not gradient.any()


@each
@pytest.mark.parametrize(("b", "n"), [(0, 2), (1, 0)])
def test_a_batch_with_nothing_to_compare_has_no_loss(name, b, n):
    loss, _, scores = LOSSES[name]
    value, gradient = value_and_gradient(loss, batch(b=b, n=n, scores=scores))
    assert value == 0
    assert not gradient.any()


@each
def test_scores_that_are_all_the_same_or_of_nothing_are_nothing(name):
    loss, _, scores = LOSSES[name]
    some = batch(scores=scores)
    same = some._replace(scores=torch.ones_like(some.scores), negatives=torch.full_like(some.negatives, -1))
    assert loss(same) == 0


def test_what_a_teacher_says_where_there_is_no_negative_is_not_looked_at():
    some = batch(scores="teacher", seed=2)
    nothing = torch.cat([torch.zeros(5, 1, dtype=torch.bool), some.negatives < 0], dim=1)
    assert nothing.any()
    unsaid = some._replace(scores=some.scores.masked_fill(nothing, torch.nan))
    agree(value_and_gradient(MarginMSE(), unsaid), value_and_gradient(MarginMSE(), some))


def test_a_duplicate_of_a_positive_is_never_its_negative_and_changes_nothing_else():
    some = distinct(b=4, n=2, scores="teacher")
    more = some._replace(
        negatives=torch.cat([some.negatives, some.positives.unsqueeze(1)], dim=1),
        scores=torch.cat([some.scores, torch.full((4, 1), 9.0, dtype=some.scores.dtype)], dim=1),
    )
    agree(value_and_gradient(MarginMSE(), more), value_and_gradient(MarginMSE(), some))


@each
def test_scores_that_are_missing_or_of_another_kind_are_told(name):
    loss, _, scores = LOSSES[name]
    with pytest.raises(UserError, match=rf"{type(loss).__name__} learns from scores .* has none"):
        loss(batch())
    with pytest.raises(UserError, match=rf"{type(loss).__name__} learns from scores"):
        loss(batch(scores="pairs" if scores == "teacher" else "teacher"))


def test_an_embedding_that_cannot_be_halved_is_told():
    with pytest.raises(UserError, match="3 dimensions"):
        AnglE()(batch(d=3, scores="pairs"))
