"""The time of training that waits for a model which reads meanwhile."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from estimates import Streaming
from estimates.streaming import step_alone, streamed_seconds

streams = st.builds(
    Streaming,
    pool_rows=st.floats(100, 1e4),
    batch_rows=st.integers(10, 100),
    read_alone=st.floats(100, 1e5),
    read_beside=st.just(0.0),
    pass_rows=st.one_of(st.none(), st.floats(100, 5e4)),
)


@given(streams, st.integers(1, 500), st.floats(1e-4, 1.0), st.floats(0.3, 1.0), st.floats(0, 0.5))
def test_it_lies_between_the_slower_of_both_and_the_sum_of_both(stream, batches, step, share, between):
    stream = Streaming(**{**vars(stream), "read_beside": share * stream.read_alone})
    seconds = streamed_seconds(batches, step, stream, between)
    rows = batches * stream.batch_rows
    assert seconds >= batches * step_alone(step, stream) - 1e-6
    assert seconds + batches * between >= rows / stream.read_alone / 2 - 1e-6
    # the reading of what is trained on and of two pools more at most, at its slowest, and every step
    assert seconds <= batches * step + (rows + 2 * stream.pool_rows) / stream.read_beside + 1e-6


@given(streams, st.integers(1, 200), st.floats(1e-4, 0.5))
def test_more_batches_never_take_less(stream, batches, step):
    stream = Streaming(**{**vars(stream), "read_beside": 0.5 * stream.read_alone})
    assert streamed_seconds(batches + 1, step, stream) >= streamed_seconds(batches, step, stream) - 1e-6


def test_a_model_that_reads_at_once_costs_the_first_pool_alone():
    stream = Streaming(pool_rows=1000, batch_rows=10, read_alone=1e3, read_beside=1e3)
    # 1 s for the first pool; 50 batches, of 50 ms, from half of it, while the next is made in 1 s
    assert streamed_seconds(50, 0.05, stream) == pytest.approx(1 + 20 * 0.05 + 30 * 0.025)


def test_a_training_that_waits_goes_at_the_pace_of_the_reader():
    stream = Streaming(pool_rows=1000, batch_rows=10, read_alone=100.0, read_beside=100.0)
    many = streamed_seconds(10_000, 0.001, stream)
    assert many == pytest.approx(10_000 * 10 / 100, rel=0.02)


def test_without_reading_ahead_the_times_add_up():
    stream = Streaming(pool_rows=1000, batch_rows=10, read_alone=100.0, read_beside=0.0, ahead=False)
    assert streamed_seconds(100, 0.1, stream) == pytest.approx(100 * (0.1 + 0.1))
