from collections import Counter
from itertools import accumulate

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from datamodules.lanes import Lanes
from datamodules.mixing import Cursor, Pool, Pools, mix, share_out
from datamodules.shards import BlockShuffle, Rank

SIZES = st.lists(st.integers(0, 40), min_size=1, max_size=8)


def pools_of(sizes, first=0, lane=0):
    """Pools of one pass of one lane: row i holds i and -i at two hook points."""
    ends = list(accumulate(sizes))
    for number in range(first, len(sizes)):
        rows = torch.arange(ends[number] - sizes[number], ends[number])
        columns = torch.stack([rows, -rows], dim=1).to(torch.bfloat16), rows[:, None].double()
        yield Pools(number, number == len(sizes) - 1, {lane: Pool(columns, rows)})


def mixed(sizes, batch_rows, start=None, seed=0):
    start = (start or Cursor()).begun(1)
    return list(mix(pools_of(sizes, start.leftovers[0].pool), start, seed, Lanes(1, batch_rows)))


def rows_of(batches):
    return [batch.rows.tolist() for batch, _ in batches]


@given(SIZES, st.integers(1, 30))
def test_every_row_comes_once_a_pass_but_for_less_than_a_batch(sizes, batch_rows):
    batches = rows_of(mixed(sizes, batch_rows))
    seen = [row for rows in batches for row in rows]
    assert all(len(rows) == batch_rows for rows in batches)
    assert len(batches) == sum(sizes) // batch_rows
    assert len(seen) == len(set(seen))
    assert set(seen) <= set(range(sum(sizes)))


@given(SIZES, st.integers(1, 30), st.data())
def test_the_batches_from_any_cursor_on_are_those_of_an_uninterrupted_pass(sizes, batch_rows, data):
    whole = mixed(sizes, batch_rows)
    if not whole:
        return
    place = data.draw(st.integers(0, len(whole) - 1))
    cursor = Cursor.of(whole[place][1].plain())
    if cursor.round:
        assert cursor == Cursor(round=1)
        assert place + 1 == len(whole)
        return
    rest = mixed(sizes, batch_rows, cursor)
    assert rows_of(rest) == rows_of(whole[place + 1 :])
    assert [after for _, after in rest] == [after for _, after in whole[place + 1 :]]


@given(st.lists(st.integers(20, 40), min_size=2, max_size=8), st.integers(1, 10))
def test_a_cursor_asks_for_no_more_than_the_pool_before_its_own(sizes, batch_rows):
    for _, cursor in mixed(sizes, batch_rows)[:-1]:
        assert max(0, cursor.segment - 1) <= cursor.leftovers[0].pool <= cursor.segment


def test_the_activations_are_those_of_the_rows_as_float32():
    for batch, _ in mixed([30, 17, 21], 8):
        first, second = batch.activations
        assert first.dtype == second.dtype == torch.float32
        assert torch.equal(first, torch.stack([batch.rows, -batch.rows], dim=1).float())
        assert torch.equal(second, batch.rows[:, None].float())


def test_round_seed_and_lane_each_give_another_order():
    def order(round_=0, seed=0, lane=0):
        # the other lane has just as much
        batches = mix(
            pools_of([40, 40], lane=lane),
            Cursor(round_).begun(2),
            seed,
            Lanes(2, 16, Rank(lane, 2)),
            lambda known: [known[lane]] * 2,
        )
        return rows_of(batches)

    orders = [order(), order(round_=1), order(seed=1), order(lane=1)]
    assert all(one != other for i, one in enumerate(orders) for other in orders[:i])
    assert order() == order()


@given(st.lists(st.tuples(st.integers(0, 200), st.integers(0, 200)), min_size=1, max_size=4), st.integers(1, 40))
def test_a_share_gives_every_lane_the_same_number_of_whole_batches(lanes, batch_rows):
    left, pool = zip(*lanes, strict=True)
    for last in (False, True):
        share = share_out(left, pool, batch_rows, last)
        for a, b, taken, kept in zip(left, pool, share.taken, share.kept, strict=True):
            assert 0 <= taken <= b
            assert share.batches * batch_rows <= a + taken
            if len(lanes) == 1 and not last:
                assert a + taken == share.batches * batch_rows or (kept and taken == 0)
            # what stays in memory is bounded by the new pool and a batch
            assert (a if kept else 0) + b - taken <= max(b, -(-a // batch_rows) * batch_rows, batch_rows)


def test_pools_without_rows_are_bridged():
    """As when one long document is held out."""
    assert Counter(map(len, rows_of(mixed([50, 0, 0, 3, 0, 50, 0], 20)))) == {20: 5}


@pytest.mark.parametrize(("pool_documents", "least"), [(8, 9), (32, 30)])
def test_a_batch_holds_rows_of_about_as_many_documents_as_two_pools_have(pool_documents, least):
    """Documents of 100 rows, batches of 64: drawn from the whole text they would hold rows of some 60 documents."""
    documents, pools = 100, 12

    def distinct(batches):
        batches = batches[len(batches) // 3 : -len(batches) // 3]  # the ends mix with one neighbour alone
        counts = [len({row // documents for row in rows}) for rows in batches]
        return sum(counts) / len(counts)

    streamed = distinct(rows_of(mixed([documents * pool_documents] * pools, 64)))
    rows = documents * pool_documents * pools
    shuffle = BlockShuffle(torch.tensor([[0, rows]]), 16, 0)
    stored = distinct([shuffle.rows(0, first, first + 64).tolist() for first in range(0, rows - 64, 64)])
    assert least < streamed <= 2 * pool_documents
    assert stored < 6  # blocks of 16 rows stay together there
