"""One pass, whatever number of processes reads which part of it."""

from concurrent.futures import ThreadPoolExecutor
from itertools import chain, islice
from threading import Barrier

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from datamodules.lanes import Lanes
from datamodules.mixing import Cursor, Pool, Pools, mix, permuted, share_out
from datamodules.shards import Rank

COUNTS = [1, 2, 3, 4, 6]
BATCH = 12  # all of them divide it
SEED = 5


def row(lane, pool, place):
    return 1_000_000 * lane + 1000 * pool + place


def pools_of(sizes, first, lanes):
    """Those of one process: `sizes` are rows by pool and lane."""
    for number in range(min(first.values()), len(sizes)):
        by_lane = {}
        for lane in first:
            if first[lane] <= number:
                rows = torch.tensor([row(lane, number, place) for place in range(sizes[number][lane])]).long()
                by_lane[lane] = Pool((rows[:, None].double(),), rows)
        yield Pools(number, number == len(sizes) - 1, by_lane)


def read(sizes, start, processes, batches=None):
    """Whole batches from a cursor on, each with that of the next, and how often the processes agreed. Threads stand for
    the processes; each calls `agree` as often as the others or all would wait for ever.
    """
    table, barrier, agreed = [None] * processes, Barrier(processes, timeout=20), [0] * processes
    start = start.begun(processes)
    number = len(start.leftovers)

    def process(rank):
        def agree(known):
            agreed[rank] += 1
            table[rank] = known
            barrier.wait()
            everyone = torch.tensor(table).amax(dim=0).tolist()
            barrier.wait()
            return everyone

        lanes = Lanes(number, BATCH, Rank(rank, processes))
        first = {lane: start.leftovers[lane].pool for lane in lanes.places()}
        return list(islice(mix(pools_of(sizes, first, number), start, SEED, lanes, agree), batches))

    if processes == 1:
        parts = [process(0)]
    else:
        with ThreadPoolExecutor(processes) as threads:
            parts = list(threads.map(process, range(processes)))
    assert len(set(agreed)) == 1
    whole = []
    for together in zip(*parts, strict=True):
        assert {len(batch.rows) for batch, _ in together} == {BATCH // processes}
        assert len({cursor for _, cursor in together}) == 1
        assert all(torch.equal(batch.activations[0][:, 0], batch.rows.float()) for batch, _ in together)
        whole.append((list(chain(*(batch.rows.tolist() for batch, _ in together))), together[0][1]))
    return whole


def naive(sizes, number):
    """The batches of a pass of so many lanes, from lists of all its rows."""
    rows, batches = BATCH // number, []
    left = [[] for _ in range(number)]
    for pool, lanes in enumerate(sizes):
        added = [
            [row(lane, pool, place) for place in permuted(lanes[lane], f"{SEED} 0 {lane} pool {pool}")]
            for lane in range(number)
        ]
        share = share_out([len(each) for each in left], [len(each) for each in added], rows, pool == len(sizes) - 1)
        drawn = []
        for lane in range(number):
            segment = left[lane] + added[lane][: share.taken[lane]]
            left[lane] = (left[lane] if share.kept[lane] else []) + added[lane][share.taken[lane] :]
            order = permuted(len(segment), f"{SEED} 0 {lane} segment {pool}")
            drawn.append([[segment[i] for i in sorted(order[b * rows : (b + 1) * rows])] for b in range(share.batches)])
        batches += [list(chain(*together)) for together in zip(*drawn, strict=True)]
    return batches


@given(st.sampled_from(COUNTS), st.sampled_from(COUNTS), st.integers(1, 3))
def test_every_place_of_a_batch_is_taken_by_one_process(number, processes, multiple):
    batch = BATCH * multiple
    taken = []
    for rank in range(processes):
        lanes = Lanes(number, batch, Rank(rank, processes))
        places = lanes.places()
        assert all(part.start < part.stop <= lanes.batch_rows for part in places.values())
        mine = [lane * lanes.batch_rows + place for lane, part in places.items() for place in np.r_[part]]
        assert mine == list(range(*lanes.rank.share(0, batch)))
        assert len(places) <= max(1, -(-number // processes) + 1)
        if number == processes:
            assert list(places) == [rank]
        taken += mine
    assert taken == list(range(batch))


@settings(max_examples=40)
@given(st.data())
def test_a_pass_is_the_same_however_often_the_number_of_processes_changes(data):
    number = data.draw(st.sampled_from(COUNTS))
    size = st.integers(0, 40)
    sizes = data.draw(st.lists(st.tuples(*[size] * number), min_size=1, max_size=6))
    expected = naive(sizes, number)
    assert len(set(chain(*expected))) == len(expected) * BATCH  # nothing twice
    found, cursor, processes = [], Cursor(), number
    while not cursor.round:
        batches = data.draw(st.integers(1, 6))
        some = read(sizes, cursor, processes, batches)
        found += some
        if len(some) < batches:
            break
        cursor = Cursor.of(some[-1][1].plain())
        processes = data.draw(st.sampled_from(COUNTS))
    assert [rows for rows, _ in found] == expected
    assert cursor.round == 0 or cursor == Cursor(1)


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_two_lanes_lose_no_more_than_one_batch_of_each_when_they_are_even(processes):
    sizes = [(40, 40), (40, 40), (17, 17)]
    batches = read(sizes, Cursor().begun(2), processes)
    assert len(batches) == 2 * 97 // BATCH
    assert batches[-1][1] == Cursor(1)
