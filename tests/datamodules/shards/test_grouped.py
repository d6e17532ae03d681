from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from datamodules.shards import BlockShuffle, GroupedShuffle


@st.composite
def stores(draw):
    """Shards of uneven lengths, ranges of their rows (some empty, some over several shards), and the rows in them."""
    shards = draw(st.lists(st.integers(1, 30), min_size=1, max_size=9))
    cuts = sorted(draw(st.lists(st.integers(0, sum(shards)), min_size=2, max_size=12)))
    pairs = list(pairwise(cuts))[:: draw(st.sampled_from([1, 2]))]
    return np.array(shards), torch.tensor(pairs), [row for start, stop in pairs for row in range(start, stop)]


def order_of(shuffle, epoch=0):
    return [int(shuffle.rows(epoch, place, place + 1)) for place in range(shuffle.size)]


@settings(max_examples=60)
@given(
    store=stores(),
    mixed=st.integers(1, 10),
    block_rows=st.integers(1, 20),
    seed=st.integers(0, 2**40),
    epoch=st.integers(0, 3),
    cuts=st.sets(st.integers(1, 199)),
)
def test_an_epoch_visits_every_row_once_group_by_group(store, mixed, block_rows, seed, epoch, cuts):
    shards, pairs, rows = store
    shuffle = GroupedShuffle(pairs, shards, mixed, block_rows, seed)
    assert shuffle.size == len(rows)
    order = order_of(shuffle, epoch)
    assert sorted(order) == rows
    shard_of = np.repeat(np.arange(len(shards)), shards)
    places = {}  # of each shard's rows in the order
    for start, stop in pairwise([0, 0, *sorted(cut for cut in cuts if cut < len(rows)), len(rows)]):
        assert shuffle.rows(epoch, start, stop).tolist() == sorted(order[start:stop])
        if start < stop:
            assert {shard_of[row] for row in order[start:stop]} <= shuffle.shards_at(epoch, start, stop)
    for place, row in enumerate(order):
        places.setdefault(int(shard_of[row]), []).append(place)
    groups = list(shuffle.groups_from(epoch, 0))
    count = -(-len(places) // mixed)
    for epoch_groups in (groups[:count], groups[count:]):
        assert sorted(shard for group in epoch_groups for shard in group) == sorted(places)
    ends = [max(max(places[shard]) for shard in group) for group in groups[:count] if len(group)]
    starts = [min(min(places[shard]) for shard in group) for group in groups[:count] if len(group)]
    assert all(end < start for end, start in zip(ends, starts[1:], strict=False))  # no group begins before its turn
    assert all(len(group) <= mixed for group in groups)


@settings(max_examples=30)
@given(store=stores(), block_rows=st.integers(1, 20), seed=st.integers(0, 99), epoch=st.integers(0, 3))
def test_one_group_is_the_shuffle_of_all_rows(store, block_rows, seed, epoch):
    shards, pairs, rows = store
    plain = BlockShuffle(pairs, block_rows, seed)
    for mixed in (None, len(shards), len(shards) + 3):
        grouped = GroupedShuffle(pairs, shards, mixed, block_rows, seed)
        assert order_of(grouped, epoch) == order_of(plain, epoch)
        assert grouped.spread(7).tolist() == plain.spread(7).tolist()
    assert set(plain.spread(10_000).tolist()) == set(rows)


def test_groups_of_one_size_are_in_orders_of_their_own():
    shuffle = GroupedShuffle(torch.tensor([[0, 400]]), np.full(40, 10), 4, 1, 0)
    within = [tuple(np.array(order_of(shuffle)[group * 40 : group * 40 + 40]) % 10) for group in range(10)]
    assert len(set(within)) == 10


def test_epochs_deal_the_shards_anew():
    shuffle = GroupedShuffle(torch.tensor([[0, 400]]), np.full(40, 10), 4, 1, 0)
    first, second = (shuffle.shards_at(epoch, 0, 40) for epoch in (0, 1))
    assert first != second


def test_a_sample_is_of_the_group_that_is_read_first():
    shuffle = GroupedShuffle(torch.tensor([[0, 400]]), np.full(40, 10), 4, 2, 0)
    sample = shuffle.spread(20)
    assert len(sample.unique()) == 20
    assert {int(row) // 10 for row in sample} == shuffle.shards_at(0, 0, 40)


@pytest.mark.parametrize("pairs", [[[0, 0]], [[5, 5], [7, 7]]])
def test_a_split_without_rows_has_an_empty_order(pairs):
    shuffle = GroupedShuffle(torch.tensor(pairs), np.full(4, 10), 2, 2, 0)
    assert shuffle.size == 0
    assert len(shuffle.rows(0, 0, 0)) == len(shuffle.spread(5)) == 0
    assert shuffle.shards_at(0, 0, 1) == set()
