"""One item ahead: the next is made in a background thread while this one is used."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from itertools import islice
from typing import Generic, TypeVar

import torch

T = TypeVar("T")


class Ahead(Generic[T]):
    """Iterates over what a generator yields, which runs in a thread of its own and is never more than one item ahead.

    What it raises surfaces, as itself, where its next item is asked for. The thread ends with the generator or with
    `close`, which waits for the item in the making; the maker should look now and then whether anyone still wants it.

    Args:
        items: the generator; nothing else may touch it from now on.
        device: on which it computes; on a GPU it gets a stream of its own, so that it does not wait for the training
            step's kernels nor they for its. What it yields must be ready to use, as tensors on the CPU are.
    """

    def __init__(self, items: Iterator[T], device: torch.device | None = None) -> None:
        self._items = items
        self._context = _stream_context(device)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="fulgurite-ahead")
        self._next: Future[list[T]] | None = self._thread.submit(self._make)

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        if self._next is None:
            raise StopIteration
        try:
            made = self._next.result()
        except BaseException:
            if self._next.done():  # or it is this thread that was interrupted, and waiting would be no answer to that
                self.close()
            raise
        if not made:
            self.close()
            raise StopIteration
        self._next = self._thread.submit(self._make)
        return made[0]

    def close(self) -> None:
        """Ends the thread and the generator. Can be called again."""
        self._next = None
        self._thread.shutdown(wait=True, cancel_futures=True)
        if close := getattr(self._items, "close", None):
            close()

    def _make(self) -> list[T]:
        """The next item, or nothing; a StopIteration could not leave a future."""
        with self._context():
            return list(islice(self._items, 1))


def _stream_context(device: torch.device | None) -> Callable[[], AbstractContextManager[object]]:
    if device is None or device.type != "cuda":
        return nullcontext
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    # the model's weights may still be on their way on the stream of whoever loaded it
    stream.wait_stream(torch.cuda.current_stream(device))
    # entering it also makes its device the thread's current one, which every new thread has to be told
    return lambda: torch.cuda.stream(stream)
