from collections import Counter

import torch
from hypothesis import given
from hypothesis import strategies as st

from datamodules.shards import split_of, split_ranges

NAMES = st.lists(st.text(), min_size=1, max_size=30, unique=True)
SHARE = st.floats(0, 0.5)


@given(names=NAMES, seed=st.integers(), validation=SHARE, test=SHARE, data=st.data())
def test_a_document_s_split_does_not_depend_on_the_others(names, seed, validation, test, data):
    fewer = data.draw(st.lists(st.sampled_from(names), unique=True))
    assert [split_of(name, seed, validation, test) for name in fewer] == [
        {name: split_of(name, seed, validation, test) for name in names}[name] for name in fewer
    ]


@given(names=NAMES, seed=st.integers(), validation=SHARE, test=SHARE)
def test_every_document_s_rows_are_in_its_split_and_no_other(names, seed, validation, test):
    stops = torch.arange(1, len(names) + 1) * 10
    ranges = torch.stack([stops - 10, stops], dim=1)
    parts = split_ranges(names, ranges, seed, validation, test)
    assert sorted(torch.cat(list(parts.values())).tolist()) == ranges.tolist()
    for name, range_ in zip(names, ranges.tolist(), strict=True):
        assert range_ in parts[split_of(name, seed, validation, test)].tolist()


@given(names=NAMES, seed=st.integers(), shares=st.tuples(SHARE, SHARE).map(sorted))
def test_holding_more_out_keeps_what_was_held_out(names, seed, shares):
    less, more = shares
    for name in names:
        if split_of(name, seed, less, 0) == "validation":
            assert split_of(name, seed, more, 0) == "validation"


def test_shares_are_what_was_asked_for():
    counts = Counter(split_of(f"module_{number}.py", 3, 0.1, 0.2) for number in range(5000))
    assert abs(counts["validation"] - 500) < 100
    assert abs(counts["test"] - 1000) < 130


def test_another_seed_holds_others_out():
    def held_out(seed):
        return {n for n in range(500) if split_of(f"{n}.py", seed, 0.2, 0) == "validation"}

    assert held_out(0) != held_out(1)
    assert len(held_out(0) & held_out(1)) < 50
