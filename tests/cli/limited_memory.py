"""A callback for a run in a process of its own: from a step on the address space may grow by so many bytes."""

import resource
from pathlib import Path

from lightning.pytorch import Callback


class LimitedMemory(Callback):
    def __init__(self, step: int, more: int) -> None:
        self.step = step
        self.more = more

    def on_train_batch_start(self, trainer, *_):
        if trainer.global_step == self.step:
            pages = int(Path("/proc/self/statm").read_text().split()[0])
            limit = pages * resource.getpagesize() + self.more
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
