"""Losses of prefixes against the loss of cut embeddings."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_modules.losses import CoSENT, InfoNCE, MarginMSE, Matryoshka, Triplet
from run_store import UserError
from tests.lightning_modules.losses.batches import (
    agree,
    batch,
    batches,
    distinct,
    extremes,
    gradcheck,
    order_says_nothing,
    value_and_gradient,
)


@pytest.mark.parametrize(
    ("loss", "scores"),
    [(InfoNCE(), None), (Triplet(mining="batch_hard"), None), (CoSENT(), "pairs"), (MarginMSE(), "teacher")],
)
def test_it_is_the_weighted_sum_over_cut_embeddings_of_unit_length(loss, scores):
    some = batch(scores=scores)

    def naive(batch):
        return sum(
            weight * loss(batch._replace(texts=torch.stack([text[:k] / text[:k].norm() for text in batch.texts])))
            for k, weight in ((4, 1.0), (1, 0.5), (3, 2.0))
        )

    ours = Matryoshka(loss, [4, 1, 3], [1.0, 0.5, 2.0])
    agree(value_and_gradient(ours, some), value_and_gradient(naive, some))


@given(batches(), st.integers(0, 99))
@settings(max_examples=20, deadline=None)
def test_the_order_of_texts_says_nothing(some, seed):
    order_says_nothing(Matryoshka(InfoNCE(), [2, 1]), some, seed)


def test_gradcheck_extremes_and_one_prefix_that_is_all():
    some = batch(b=4, seed=1)
    assert gradcheck(Matryoshka(InfoNCE(), [4, 2]), some)
    extremes(Matryoshka(InfoNCE(), [4, 2]), some)
    agree(value_and_gradient(Matryoshka(InfoNCE(), [4]), some), value_and_gradient(InfoNCE(), some))


def test_a_duplicate_of_a_positive_is_never_its_negative_and_changes_nothing_else():
    some = distinct(b=4, n=2)
    loss = Matryoshka(InfoNCE(), [4, 2])
    more = some._replace(negatives=torch.cat([some.negatives, some.positives.unsqueeze(1)], dim=1))
    agree(value_and_gradient(loss, more), value_and_gradient(loss, some))


def test_it_wants_a_guide_if_what_it_holds_does():
    assert Matryoshka(InfoNCE(guide_margin=0.1), [2]).needs_guide
    assert not Matryoshka(InfoNCE(), [2]).needs_guide
    some = batch()
    torch.testing.assert_close(Matryoshka(InfoNCE(guide_margin=0.1), [4])(some), InfoNCE(guide_margin=0.1)(some))
    with pytest.raises(UserError, match="guide"):
        Matryoshka(InfoNCE(guide_margin=0.1), [2])(some._replace(guide=None))


@pytest.mark.parametrize(
    ("loss", "told"),
    [
        (Matryoshka(InfoNCE(), []), "dims is empty"),
        (Matryoshka(InfoNCE(), [2, 2]), "once"),
        (Matryoshka(InfoNCE(), [2, 1], [1.0]), "1 weights for 2 dims"),
        (Matryoshka(Triplet(5.0), [2]), "margin"),
        (Matryoshka(Matryoshka(InfoNCE(), [2]), [2]), "another Matryoshka"),
    ],
)
def test_settings_that_make_no_sense_are_refused(loss, told):
    with pytest.raises(UserError, match=told):
        loss.check_settings()


def test_more_dimensions_than_there_are_are_told():
    Matryoshka(InfoNCE(), [4, 2]).check_settings()
    with pytest.raises(UserError, match="dims names 5, and the encoder's embeddings have 4"):
        Matryoshka(InfoNCE(), [2, 5])(batch())
