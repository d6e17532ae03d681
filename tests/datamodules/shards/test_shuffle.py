from itertools import combinations, pairwise

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from datamodules.shards import BlockShuffle

SEEDS = st.integers(0, 2**40)


@st.composite
def ranges(draw):
    """Ranges, some empty or touching, and the rows in them."""
    cuts = sorted(draw(st.lists(st.integers(0, 200), min_size=2, max_size=12)))
    pairs = list(pairwise(cuts))[:: draw(st.sampled_from([1, 2]))]
    rows = [row for start, stop in pairs for row in range(start, stop)]
    return torch.tensor(pairs), rows


def order_of(shuffle, epoch=0):
    """Place by place; `rows` itself sorts what it is asked for at once."""
    return [int(shuffle.rows(epoch, place, place + 1)) for place in range(shuffle.size)]


@settings(max_examples=50)
@given(
    ranges=ranges(),
    block_rows=st.integers(1, 40),
    seed=SEEDS,
    epoch=st.integers(0, 5),
    cuts=st.sets(st.integers(1, 199)),
)
def test_an_epoch_visits_every_row_of_the_ranges_once_however_it_is_cut(ranges, block_rows, seed, epoch, cuts):
    pairs, rows = ranges
    shuffle = BlockShuffle(pairs, block_rows, seed)
    assert shuffle.size == len(rows)
    order = order_of(shuffle, epoch)
    assert sorted(order) == rows
    for start, stop in pairwise([0, 0, *sorted(cut for cut in cuts if cut < len(rows)), len(rows)]):
        assert shuffle.rows(epoch, start, stop).tolist() == sorted(order[start:stop])
    if rows:
        assert shuffle.physical(np.arange(len(rows))).tolist() == rows


@given(size=st.integers(1, 200), block_rows=st.integers(1, 50), seed=SEEDS)
def test_blocks_stay_together(size, block_rows, seed):
    order = torch.tensor(order_of(BlockShuffle(torch.tensor([[0, size]]), block_rows, seed)))
    torn = int((order.diff() != 1).sum())
    assert torn <= -(-size // block_rows) - 1


def test_epochs_and_seeds_are_other_orders_and_the_same_ones_are_the_same():
    pairs = torch.tensor([[0, 200]])
    orders = [order_of(BlockShuffle(pairs, 8, seed), epoch) for seed in (0, 1) for epoch in (0, 1)]
    assert all(one != other for one, other in combinations(orders, 2))
    assert orders[-1] == order_of(BlockShuffle(pairs, 8, 1), 1)


def test_the_order_is_the_one_that_earlier_releases_gave():
    # A checkpoint's cursor means rows only as long as the formula stays what it was.
    earlier = [0, 1, 2, 22, 23, 24, 25, 26, 27, 28, 29, 3, 4, 5, 9, 20, 21, 6, 7, 8]
    assert order_of(BlockShuffle(torch.tensor([[0, 10], [20, 30]]), 3, 0), epoch=1) == earlier


def test_a_split_of_a_trillion_rows_costs_no_memory():
    shuffle = BlockShuffle(torch.tensor([[5, 10**12 + 5]]), 16, 0)
    rows = shuffle.rows(3, 5 * 10**11, 5 * 10**11 + 4096)
    assert len(rows.unique()) == 4096
    assert int(rows.min()) >= 5
    assert int(rows.max()) < 10**12 + 5
    assert int(rows.float().std()) > 10**11
