"""Filters against the same rules told token by token."""

import math
import statistics

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from backbones import RowCounts
from backbones.row_filters import choose, outliers
from datamodules.text import TokenBatch

PAD, SPECIAL, REPEATED, CONTENT = range(4)


def make_batch(kinds):
    """A batch of contexts given as lists of kinds, padded on the right."""
    lengths = [len(context) for context in kinds]
    positions = torch.full((len(kinds), max(lengths)), -1)
    for row, context in enumerate(kinds):
        for place, kind in enumerate(context):
            positions[row, place] = {SPECIAL: -1, REPEATED: -2, CONTENT: place}[kind]
    documents = torch.arange(len(kinds))[:, None].expand_as(positions)
    return TokenBatch(torch.zeros_like(positions), documents, positions, torch.tensor(lengths))


def expected_fate(kind, place, length, special, first, positions):
    """What becomes of one token: `kept`, the name of the count of the filter that took it, or None for no candidate."""
    if kind not in (SPECIAL, CONTENT):
        return None
    if place == 0 and first is False:
        return "first_tokens"
    if kind == SPECIAL and not special and not (place == 0 and first):
        return "special_tokens"
    if positions is not None and place not in positions and place - length not in positions:
        return "other_positions"
    return "kept"


contexts = st.lists(
    st.lists(st.sampled_from([SPECIAL, REPEATED, CONTENT]), min_size=1, max_size=6), min_size=1, max_size=4
)


@given(contexts, st.booleans(), st.none() | st.booleans(), st.none() | st.lists(st.integers(-7, 7), max_size=3))
def test_each_token_meets_the_fate_that_the_rules_say(kinds, special, first, positions):
    batch, counts = make_batch(kinds), RowCounts()
    chosen = choose(batch, special, first, positions, counts)
    fates = [
        [expected_fate(kind, place, len(context), special, first, positions) for place, kind in enumerate(context)]
        for context in kinds
    ]
    for row, context in enumerate(fates):
        padding = chosen.kept.shape[1] - len(context)
        assert chosen.kept[row].tolist() == [fate == "kept" for fate in context] + [False] * padding
        assert chosen.content[row].tolist() == [kind == CONTENT for kind in kinds[row]] + [False] * padding
        assert chosen.exempt[row, 0].item() == (first is True and kinds[row][0] != REPEATED)
    assert not chosen.exempt[:, 1:].any()
    for name in ("first_tokens", "special_tokens", "other_positions"):
        assert getattr(counts, name) == sum(context.count(name) for context in fates)


@given(contexts, st.floats(0.5, 3), st.randoms(use_true_random=False))
def test_outliers_are_measured_by_the_content_of_their_own_context(kinds, ratio, random):
    batch = make_batch(kinds)
    norms = torch.tensor([[random.uniform(0.1, 10) for _ in row] for row in batch.positions])
    content = batch.positions >= 0
    found = outliers(norms, content, ratio)
    for row, context in enumerate(kinds):
        lengths = [norms[row, place].item() for place, kind in enumerate(context) if kind == CONTENT]
        limit = ratio * statistics.median_low(lengths) if lengths else math.inf
        for place in range(len(context)):
            length = norms[row, place].item()
            if not math.isclose(length, limit, rel_tol=1e-5):
                assert found[row, place].item() == (length > limit)


@pytest.mark.parametrize("padding", [0, 5])
def test_places_from_the_end_are_counted_without_padding(padding):
    batch = make_batch([[SPECIAL, CONTENT, CONTENT, CONTENT], [CONTENT] * (4 + padding)])
    kept = choose(batch, False, None, [1, -1], RowCounts()).kept
    assert kept[0].nonzero().flatten().tolist() == [1, 3]
    assert kept[1].nonzero().flatten().tolist() == [1, 3 + padding]
