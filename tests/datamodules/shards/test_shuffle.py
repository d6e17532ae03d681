from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from datamodules.shards import BlockShuffle, Permutation

SEEDS = st.integers(0, 2**40)


@given(size=st.integers(1, 3000), key=st.text())
@example(size=1, key="")
@example(size=4097, key="a little more than a window")
def test_a_permutation_sends_every_number_to_its_own_place_and_back(size, key):
    permutation = Permutation(size, key)
    images = permutation(np.arange(size))
    assert sorted(images) == list(range(size))
    assert (permutation.inverse(images) == np.arange(size)).all()


def test_a_permutation_of_any_size_is_computed_where_it_is_asked():
    size = 10**15 + 37
    permutation = Permutation(size, "large")
    places = np.array([0, 1, 10**9, size - 1])
    images = permutation(places)
    assert ((images >= 0) & (images < size)).all()
    assert (permutation.inverse(images) == places).all()


@pytest.mark.parametrize("size", [2, 5, 16])
def test_every_number_comes_first_about_equally_often(size):
    counts = Counter(int(Permutation(size, str(key))(np.array([0]))[0]) for key in range(200 * size))
    assert set(counts) == set(range(size))
    # a share of 200 has a standard deviation of 14
    assert all(130 < count < 270 for count in counts.values())


def test_neighbours_do_not_stay_neighbours():
    images = Permutation(10_000, "key")(np.arange(10_000))
    assert (np.abs(np.diff(images)) == 1).sum() < 15
    assert abs(np.corrcoef(images, np.arange(10_000))[0, 1]) < 0.05


@st.composite
def ranges(draw):
    """Ranges, some empty or touching, and the rows in them."""
    cuts = sorted(draw(st.lists(st.integers(0, 400), min_size=2, max_size=12)))
    pairs = list(pairwise(cuts))[:: draw(st.sampled_from([1, 2]))]
    rows = [row for start, stop in pairs for row in range(start, stop)]
    return torch.tensor(pairs), rows


@given(
    ranges=ranges(),
    block_rows=st.integers(1, 50),
    seed=SEEDS,
    epoch=st.integers(0, 5),
    cuts=st.sets(st.integers(1, 399)),
)
def test_an_epoch_visits_every_row_of_the_ranges_once_however_it_is_cut(ranges, block_rows, seed, epoch, cuts):
    pairs, rows = ranges
    shuffle = BlockShuffle(pairs, block_rows, seed)
    assert shuffle.size == len(rows)
    order = shuffle.rows(epoch, 0, shuffle.size).tolist()
    assert sorted(order) == rows
    bounds = [0, *sorted(cut for cut in cuts if cut < len(rows)), len(rows)]
    pieces = [shuffle.rows(epoch, start, stop) for start, stop in pairwise(bounds)]
    assert torch.cat([shuffle.rows(epoch, 0, 0), *pieces]).tolist() == order


@given(size=st.integers(1, 300), block_rows=st.integers(1, 50), seed=SEEDS)
def test_blocks_stay_together(size, block_rows, seed):
    order = BlockShuffle(torch.tensor([[0, size]]), block_rows, seed).rows(0, 0, size)
    torn = int((order.diff() != 1).sum())
    assert torn <= -(-size // block_rows) - 1


def test_epochs_and_seeds_are_other_orders_and_the_same_ones_are_the_same():
    pairs = torch.tensor([[0, 1000]])
    orders = {(seed, epoch): BlockShuffle(pairs, 8, seed).rows(epoch, 0, 1000) for seed in (0, 1) for epoch in (0, 1)}
    keys = list(orders)
    assert not any(torch.equal(orders[one], orders[other]) for one in keys for other in keys if one != other)
    assert torch.equal(orders[1, 1], BlockShuffle(pairs, 8, 1).rows(1, 0, 1000))


EARLIER = [0, 1, 2, 22, 23, 24, 25, 26, 27, 28, 29, 3, 4, 5, 9, 20, 21, 6, 7, 8]


def test_the_order_is_the_one_that_earlier_releases_gave():
    # A checkpoint's cursor means rows only as long as the formula stays what it was.
    assert BlockShuffle(torch.tensor([[0, 10], [20, 30]]), 3, 0).rows(1, 0, 20).tolist() == EARLIER


def test_a_split_of_a_trillion_rows_costs_no_memory():
    shuffle = BlockShuffle(torch.tensor([[5, 10**12 + 5]]), 16, 0)
    rows = shuffle.rows(3, 5 * 10**11, 5 * 10**11 + 4096)
    assert len(rows.unique()) == 4096
    assert int(rows.min()) >= 5
    assert int(rows.max()) < 10**12 + 5
    assert int(rows.float().std()) > 10**11
