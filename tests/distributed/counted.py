"""What ranks say to each other, counted where all collectives pass: at the operators of c10d."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from lightning.pytorch import Callback
from torch.utils._python_dispatch import TorchDispatchMode


class Collectives(TorchDispatchMode):
    """Notes every collective that is begun inside, those of DDP's buckets too.

    Attributes:
        seen: (name, bytes of the tensors that this rank hands in) of each.
    """

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, int]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace == "c10d":
            # the last list of tensors is what goes in; of operations in place it is the only one
            inputs = [part for part in args if isinstance(part, list | torch.Tensor)][-1]
            size = sum(part.numel() * part.element_size() for part in _tensors(inputs))
            self.seen.append((func.__name__.partition(".")[0].rstrip("_"), size))
        return func(*args, **(kwargs or {}))


def _tensors(inputs: Any) -> Iterator[torch.Tensor]:
    if isinstance(inputs, torch.Tensor):
        yield inputs
        return
    for part in inputs:
        yield from _tensors(part)


class CountsSteps(Callback):
    """Notes what the steps from `first` to `last` exchange, from the start of the first one's batch to that of the one
    behind the last.
    """

    def __init__(self, first: int, last: int) -> None:
        self.first = first
        self.last = last
        self.collectives = Collectives()

    def on_train_batch_start(self, trainer: Any, *_: Any) -> None:
        if trainer.global_step == self.first:
            self.collectives.__enter__()
        elif trainer.global_step == self.last + 1:
            self.collectives.__exit__(None, None, None)
