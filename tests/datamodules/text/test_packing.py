import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from datamodules.text import grouped, make_window

sizes_of_contexts = st.lists(st.integers(1, 12), min_size=1, max_size=30)


def make_contexts(sizes):
    """Contexts of these lengths whose tokens, documents and positions are all different numbers."""
    return [np.arange(size) + 100 * np.array([[0], [1], [2]]) + 1000 * number for number, size in enumerate(sizes)]


@given(sizes=sizes_of_contexts, batch_size=st.integers(1, 7))
def test_the_order_gives_the_contexts_back(sizes, batch_size):
    contexts = make_contexts(sizes)
    window = make_window(5, contexts, batch_size)

    read = [
        torch.stack([column[row, :length] for column in batch[:3]])
        for batch in window.batches
        for row, length in enumerate(batch.lengths)
    ]
    assert window.number == 5
    assert sorted(window.order.tolist()) == list(range(len(sizes)))
    for place, context in zip(window.order, read, strict=True):
        assert np.array_equal(context.numpy(), contexts[place])


@given(sizes=sizes_of_contexts, batch_size=st.integers(1, 7))
def test_batches_are_sorted_and_padded_to_their_longest(sizes, batch_size):
    batches = make_window(0, make_contexts(sizes), batch_size).batches
    assert torch.cat([batch.lengths for batch in batches]).tolist() == sorted(sizes, reverse=True)
    assert all(len(batch.tokens) == batch_size for batch in batches[:-1])
    for batch in batches:
        assert batch.tokens.shape == (len(batch.lengths), batch.lengths[0])
        assert {column.dtype for column in batch} == {torch.int64}
        padding = torch.arange(batch.tokens.shape[1]) >= batch.lengths[:, None]
        assert set(batch.tokens[padding].tolist()) <= {0}
        assert set(batch.documents[padding].tolist()) | set(batch.positions[padding].tolist()) <= {-1}


def test_contexts_of_one_length_stay_in_order():
    window = make_window(0, make_contexts([4] * 9), 2)
    assert window.order.tolist() == list(range(9))


@pytest.mark.parametrize("count", [0, 1, 4, 5, 8])
def test_groups_hold_every_context_once(count):
    contexts = make_contexts([3] * count)
    groups = list(grouped(iter(contexts), 4))
    assert [context for group in groups for context in group] == contexts
    assert all(len(group) == 4 for group in groups[:-1])
    assert [] not in groups
