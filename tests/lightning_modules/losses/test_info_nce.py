"""InfoNCE against sums over sets of texts, written out."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_modules.losses import InfoNCE, info_nce
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

DIRECTIONS = ("query_to_document", "symmetric", "gte")


def naive(some, temperature, direction, in_batch, margin=None):
    """One example, one text at a time. Texts are taken for the same by id."""
    cosine = torch.nn.functional.cosine_similarity
    anchors, positives, negatives = (places.tolist() for places in (some.anchors, some.positives, some.negatives))
    ids = some.ids.tolist()
    queries = {ids[a]: a for a in anchors}
    documents = {ids[d]: d for d in [*positives, *itertools.chain(*negatives)] if d >= 0}
    total = 0 * some.texts.sum()
    for a, p, own in zip(anchors, positives, negatives, strict=True):
        pairs = list(zip(anchors, positives, strict=True))
        no_document = {ids[a]} | {ids[y] for x, y in pairs if ids[x] == ids[a]}
        no_query = {ids[p]} | {ids[x] for x, y in pairs if ids[y] == ids[p]}
        if not in_batch:
            no_document |= documents.keys() - {ids[place] for place in own if place >= 0}

        def terms(row, columns, no, a=a, p=p):
            for column in (place for key, place in columns.items() if key not in no):
                if margin is None or some.guide[row] @ some.guide[column] <= some.guide[a] @ some.guide[p] - margin:
                    yield (cosine(some.texts[row], some.texts[column], dim=0) / temperature).exp()

        pair = cosine(some.texts[a], some.texts[p], dim=0) / temperature
        qd, qq = list(terms(a, documents, no_document)), list(terms(a, queries, no_query))
        dq, dd = list(terms(p, queries, no_query)), list(terms(p, documents, no_document))
        softmaxes = {"query_to_document": [qd], "symmetric": [qd, dq], "gte": [qd + qq + dq + dd]}[direction]
        for softmax in softmaxes:
            total = total + ((pair.exp() + sum(softmax)).log() - pair) / len(softmaxes)
    return total / len(anchors)


@given(
    batches(),
    st.sampled_from([(0.5, *kind) for kind in itertools.product(DIRECTIONS, [True])] + [(0.2, DIRECTIONS[0], False)]),
    st.sampled_from([None, 0.0, 0.3, -0.5]),
)
@settings(max_examples=80, deadline=None)
def test_value_and_gradient_are_those_of_a_double_loop(some, kind, margin):
    temperature, direction, in_batch = kind
    loss = InfoNCE(temperature, direction, in_batch, guide_margin=margin)
    agree(
        value_and_gradient(loss, some),
        value_and_gradient(lambda batch: naive(batch, temperature, direction, in_batch, margin), some),
    )


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("at_once", [1, 30])
def test_scores_in_blocks_of_rows_come_to_the_same(direction, at_once, monkeypatch):
    some, loss = batch(), InfoNCE(direction=direction)
    whole = value_and_gradient(loss, some)
    monkeypatch.setattr(info_nce, "SCORES_AT_ONCE", at_once)
    for ours, theirs in zip(value_and_gradient(loss, some), whole, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_gradcheck(direction):
    assert gradcheck(InfoNCE(direction=direction, guide_margin=0.1), batch(seed=3))


@given(batches(), st.sampled_from(DIRECTIONS), st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_neither_the_order_nor_the_scale_of_texts_says_anything(some, direction, seed):
    loss = InfoNCE(direction=direction, guide_margin=0.05)
    order_says_nothing(loss, some, seed)
    scale_says_nothing(loss, some)


def test_a_duplicate_of_a_positive_is_never_its_negative_and_changes_nothing_else():
    some = distinct(b=4, n=2)
    positives = some.positives[[2, 0, 3, 1]].unsqueeze(1)
    # the texts of other examples' positives stand in the batch anyway, so that as negatives they are nothing new
    more = some._replace(negatives=torch.cat([some.negatives, positives, some.positives.unsqueeze(1)], dim=1))
    agree(value_and_gradient(InfoNCE(), more), value_and_gradient(InfoNCE(), some))
    only_own = InfoNCE(in_batch=False)
    duplicates = some._replace(negatives=torch.cat([some.negatives, some.positives.unsqueeze(1)], dim=1))
    agree(value_and_gradient(only_own, duplicates), value_and_gradient(only_own, some))
    twice = some._replace(negatives=some.negatives.repeat(1, 2))
    agree(value_and_gradient(InfoNCE(), twice), value_and_gradient(InfoNCE(), some))


def test_a_text_at_two_places_counts_once():
    some = distinct(b=3, n=1)
    copies = some._replace(
        texts=torch.cat([some.texts, some.texts[some.negatives[:, 0]]]),
        ids=torch.cat([some.ids, some.ids[some.negatives[:, 0]]]),
        negatives=torch.cat([some.negatives, len(some.ids) + torch.arange(3).unsqueeze(1)], dim=1),
    )
    torch.testing.assert_close(InfoNCE()(copies), InfoNCE()(some))


def test_two_positives_of_an_anchor_are_no_negatives_of_each_other():
    some = distinct(b=2, n=0)
    same_anchor = some._replace(anchors=some.anchors[[0, 0]])
    for direction in DIRECTIONS:
        value, gradient = value_and_gradient(InfoNCE(direction=direction), same_anchor)
        assert value == 0
        assert not gradient.any()


@pytest.mark.parametrize("in_batch", [True, False])
@pytest.mark.parametrize("n", [0, 2])
def test_without_any_negative_the_loss_is_nothing_and_so_is_its_gradient(n, in_batch):
    some = batch(b=1, n=n, u=2)
    alone = some._replace(negatives=torch.full_like(some.negatives, -1))
    value, gradient = value_and_gradient(InfoNCE(in_batch=in_batch), alone)
    assert value == 0
    assert not gradient.any()


def test_a_batch_of_no_examples_has_no_loss():
    some = batch(b=0, n=2)
    value, gradient = value_and_gradient(InfoNCE(direction="gte"), some)
    assert value == 0
    assert not gradient.any()


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_extremes(direction):
    extremes(InfoNCE(0.01, direction), batch(b=4, n=2, seed=1))


def test_identical_embeddings_come_to_the_log_of_the_number_of_documents():
    some = distinct(b=4, n=2)
    assert float(InfoNCE()(some._replace(texts=torch.ones_like(some.texts)))) == pytest.approx(math.log(12))


def test_autocast_does_not_lower_the_precision():
    some = batch(dtype=torch.float32)
    expected = InfoNCE()(some)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(InfoNCE()(some), expected)


def test_a_guide_that_is_missing_and_settings_that_make_no_sense_are_told():
    assert InfoNCE(guide_margin=0.0).needs_guide
    assert not InfoNCE().needs_guide
    with pytest.raises(UserError, match=r"InfoNCE.*guide"):
        InfoNCE(guide_margin=0.0)(batch()._replace(guide=None))
    with pytest.raises(UserError, match="in_batch"):
        InfoNCE(direction="gte", in_batch=False).check_settings()
    InfoNCE(direction="gte").check_settings()
