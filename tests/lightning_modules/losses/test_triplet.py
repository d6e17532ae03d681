"""The triplet loss against a loop over examples and documents."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_modules.losses import Triplet
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

MININGS = ("given", "batch_hard", "semi_hard")
DISTANCES = ("cosine", "euclidean")


def naive(some, margin, distance, mining):
    texts = [text / text.norm() for text in some.texts]

    def far(x, y):
        return 1 - texts[x] @ texts[y] if distance == "cosine" else (texts[x] - texts[y]).norm()

    examples = list(zip(*(places.tolist() for places in (some.anchors, some.positives, some.negatives)), strict=True))
    documents = {p for _, p, _ in examples} | {n for n in itertools.chain(*(own for *_, own in examples)) if n >= 0}
    total = 0 * some.texts.sum()
    for a, p, own in examples:
        never = {a} | {y for x, y, _ in examples if x == a}
        some_documents = sorted(documents - never, key=lambda n, a=a: far(a, n).item())
        farther = [n for n in some_documents if far(a, n) > far(a, p)]
        chosen = {
            "given": [n for n in own if n >= 0 and n not in never],
            "batch_hard": some_documents[:1],
            "semi_hard": farther[:1] or some_documents[-1:],
        }[mining]
        for n in chosen:
            total = total + (far(a, p) - far(a, n) + margin).relu() / len(chosen)
    return total / len(examples)


@given(batches(), st.sampled_from(DISTANCES), st.sampled_from(MININGS), st.sampled_from([0.2, 1.0]))
@settings(max_examples=60, deadline=None)
def test_value_and_gradient_are_those_of_a_loop(some, distance, mining, margin):
    agree(
        value_and_gradient(Triplet(margin, distance, mining), some),
        value_and_gradient(lambda batch: naive(batch, margin, distance, mining), some),
    )


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("mining", MININGS)
def test_gradcheck_and_extremes(distance, mining):
    loss = Triplet(0.5, distance, mining)
    some = distinct(b=4, n=2)
    assert loss(some) > 0
    assert gradcheck(loss, some)
    extremes(loss, batch(b=4, n=2, seed=1))


@given(batches(), st.sampled_from(DISTANCES), st.sampled_from(MININGS), st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_neither_the_order_nor_the_scale_of_texts_says_anything(some, distance, mining, seed):
    order_says_nothing(Triplet(0.2, distance, mining), some, seed)
    scale_says_nothing(Triplet(0.2, distance, mining), some)


@pytest.mark.parametrize("mining", MININGS)
def test_a_duplicate_of_a_positive_is_never_its_negative_and_changes_nothing_else(mining):
    some = distinct(b=4, n=2)
    more = some._replace(negatives=torch.cat([some.negatives, some.positives.unsqueeze(1)], dim=1))
    agree(value_and_gradient(Triplet(mining=mining), more), value_and_gradient(Triplet(mining=mining), some))


@pytest.mark.parametrize("mining", MININGS)
@pytest.mark.parametrize(("b", "n"), [(1, 0), (0, 2), (1, 2)])
def test_without_any_negative_there_is_no_loss(mining, b, n):
    some = batch(b=b, n=n)
    value, gradient = value_and_gradient(
        Triplet(mining=mining), some._replace(negatives=torch.full_like(some.negatives, -1))
    )
    assert value == 0
    assert not gradient.any()


def test_a_margin_that_no_negative_can_reach_is_refused():
    Triplet(1.9, "euclidean").check_settings()
    for distance in DISTANCES:
        with pytest.raises(UserError, match=r"margin is 5\.0"):
            Triplet(5.0, distance).check_settings()
