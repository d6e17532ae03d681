import threading
from itertools import count

import pytest
import torch

from datamodules.ahead import Ahead


def threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("fulgurite-ahead")]


def test_the_items_come_in_order_and_the_thread_ends_with_them():
    assert list(Ahead(iter(range(20)))) == list(range(20))
    assert not threads()


def test_the_work_is_done_in_another_thread_and_no_more_than_one_item_ahead():
    made, makers = [], set()

    def make():
        for number in count():
            made.append(number)
            makers.add(threading.current_thread())
            yield number

    ahead = Ahead(make())
    for used in range(5):
        assert next(ahead) == used
        assert used + 1 <= len(made) <= used + 2
    ahead.close()
    assert len(made) <= 6
    assert threading.current_thread() not in makers
    assert len(makers) == 1
    assert not threads()


def test_an_exception_surfaces_as_itself_at_its_own_item():
    def make():
        yield 1
        yield 2
        raise KeyError("broken")

    ahead = Ahead(make())
    assert [next(ahead), next(ahead)] == [1, 2]
    with pytest.raises(KeyError, match="broken") as raised:
        next(ahead)
    assert raised.traceback[-1].name == "make"
    assert not threads()
    with pytest.raises(StopIteration):
        next(ahead)


def test_closing_waits_for_the_item_in_the_making_and_closes_the_generator():
    closed = []

    def make():
        try:
            for number in count():
                torch.randn(200, 200) @ torch.randn(200, 200)
                yield number
        finally:
            closed.append(True)

    ahead = Ahead(make())
    next(ahead)
    ahead.close()
    assert closed == [True]
    assert not threads()
    ahead.close()
