import torch
from hypothesis import given
from hypothesis import strategies as st

from datamodules.shards.row_ranges import RowRanges, some_documents

LENGTHS = st.lists(st.integers(0, 7), max_size=8)


def ranges_of(lengths, gap=0):
    starts, at = [], 0
    for length in lengths:
        starts.append(at)
        at += length + gap
    return torch.tensor([[start, start + length] for start, length in zip(starts, lengths, strict=True)]).reshape(-1, 2)


@given(lengths=LENGTHS, gap=st.integers(0, 3), data=st.data())
def test_rows_are_those_of_the_ranges_one_after_the_other(lengths, gap, data):
    ranges = ranges_of(lengths, gap)
    every = [row for start, stop in ranges.tolist() for row in range(start, stop)]
    order = RowRanges(ranges)
    assert order.size == len(every)
    start = data.draw(st.integers(0, len(every)))
    stop = data.draw(st.integers(start, len(every)))
    assert order.rows(start, stop).tolist() == every[start:stop]


@given(lengths=LENGTHS, most=st.none() | st.integers(1, 40), seed=st.integers(0, 5))
def test_some_documents_are_whole_but_for_one_and_have_as_many_rows_as_were_asked_for(lengths, most, seed):
    ranges = ranges_of(lengths)
    chosen = some_documents(ranges, most, seed).tolist()
    assert chosen == some_documents(ranges, most, seed).tolist() == sorted(chosen)
    assert sum(stop - start for start, stop in chosen) == min(sum(lengths), most or sum(lengths))
    whole = {start: stop for start, stop in ranges.tolist() if stop > start}
    assert sum(whole[start] != stop for start, stop in chosen) <= 1
    assert all(start < stop <= whole[start] for start, stop in chosen)
