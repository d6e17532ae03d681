from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate
from threading import Barrier

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from datamodules.mixing import Cursor, Pool, mix, share_out
from datamodules.shards import BlockShuffle

SIZES = st.lists(st.integers(0, 40), min_size=1, max_size=8)


def pools_of(sizes, first=0, offset=0):
    """Pools of one pass: row i holds i and -i at two hook points."""
    ends = list(accumulate(sizes))
    for number in range(first, len(sizes)):
        rows = torch.arange(ends[number] - sizes[number], ends[number]) + offset
        columns = torch.stack([rows, -rows], dim=1).to(torch.bfloat16), rows[:, None].double()
        yield Pool(number, number == len(sizes) - 1, columns, rows)


def mixed(sizes, batch_rows, start=None, seed=0):
    start = start or Cursor()
    return list(mix(pools_of(sizes, start.first_pool(0)), start, seed, batch_rows))


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
        assert cursor.segment - 1 <= cursor.first_pool(0) <= cursor.segment


def test_the_activations_are_those_of_the_rows_as_float32():
    for batch, _ in mixed([30, 17, 21], 8):
        first, second = batch.activations
        assert first.dtype == second.dtype == torch.float32
        assert torch.equal(first, torch.stack([batch.rows, -batch.rows], dim=1).float())
        assert torch.equal(second, batch.rows[:, None].float())


def test_round_seed_and_rank_each_give_another_order():
    def order(start=None, seed=0, rank=0):
        start = start or Cursor()
        # the other rank says that it has just as much
        batches = mix(pools_of([40, 40]), start, seed, 8, rank, lambda mine: [mine, mine])
        return rows_of(batches)

    orders = [order(), order(Cursor(round=1)), order(seed=1), order(rank=1)]
    assert all(one != other for i, one in enumerate(orders) for other in orders[:i])
    assert order() == order()


@given(st.lists(st.tuples(st.integers(0, 200), st.integers(0, 200)), min_size=1, max_size=4), st.integers(1, 40))
def test_a_share_gives_every_rank_the_same_number_of_whole_batches(ranks, batch_rows):
    left, pool = zip(*ranks, strict=True)
    for last in (False, True):
        share = share_out(left, pool, batch_rows, last)
        for a, b, taken, kept in zip(left, pool, share.taken, share.kept, strict=True):
            assert 0 <= taken <= b
            assert share.batches * batch_rows <= a + taken
            if len(ranks) == 1 and not last:
                assert a + taken == share.batches * batch_rows or (kept and taken == 0)
            # what stays in memory is bounded by the new pool and a batch
            assert (a if kept else 0) + b - taken <= max(b, -(-a // batch_rows) * batch_rows, batch_rows)


@given(
    st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40), st.integers(0, 40)), min_size=1, max_size=6),
    st.integers(1, 20),
)
@settings(max_examples=40)
def test_ranks_agree_on_the_number_of_batches_and_resume_together(sizes, batch_rows):
    """Threads stand for the ranks; each calls `agree` as often as the others or all would wait for ever."""

    def run(start):
        table, barrier = [None] * 3, Barrier(3, timeout=20)

        def rank_of(rank):
            def agree(mine):
                table[rank] = mine
                barrier.wait()
                everyone = list(table)
                barrier.wait()
                return everyone

            pools = pools_of([size[rank] for size in sizes], start.first_pool(rank), offset=10_000 * rank)
            return list(mix(pools, start, 0, batch_rows, rank, agree))

        with ThreadPoolExecutor(3) as threads:
            return list(threads.map(rank_of, range(3)))

    ranks = run(Cursor())
    assert len({len(batches) for batches in ranks}) == 1
    cursors = [[cursor for _, cursor in batches] for batches in ranks]
    assert cursors[0] == cursors[1] == cursors[2]
    for batches in ranks:
        seen = [row for rows in rows_of(batches) for row in rows]
        assert len(seen) == len(set(seen))
    middle = len(cursors[0]) // 2
    if middle:
        for batches, rest in zip(ranks, run(cursors[0][middle - 1]), strict=True):
            assert rows_of(rest) == rows_of(batches)[middle:]


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
