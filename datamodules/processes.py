"""What the processes of an extraction ask of each other."""

from __future__ import annotations

import atexit
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch.distributed
from lightning.pytorch import Trainer

from run_store import UserError

_SECONDS_BETWEEN_LOOKS = 0.2


@dataclass(frozen=True)
class Processes:
    """The processes that write a store together, seen from one of them. Rows never pass between them."""

    rank: int = 0
    count: int = 1
    broadcast: Callable[[Any], Any] = lambda value: value
    """Gives every process the value that rank 0 has."""
    gather: Callable[[Any], list[Any]] = lambda value: [value]
    """Gives every process the values of all."""
    stopping: Callable[[], bool] = lambda: False
    """Whether this process was asked to end."""

    @classmethod
    def of(cls, trainer: Trainer) -> Processes:
        """Those of a Trainer."""
        if trainer.world_size > 1:
            # Left to the interpreter's end, gloo's threads abort the process now and then; Lightning sees to nccl's.
            atexit.register(_leave_the_group)
        return cls(
            trainer.global_rank,
            trainer.world_size,
            trainer.strategy.broadcast,
            _gathered if trainer.world_size > 1 else lambda value: [value],
            lambda: trainer.received_sigterm,
        )

    def first(self, action: Callable[[], None]) -> None:
        """Carries out `action` in rank 0 while the others wait.

        Raises:
            UserError: rank 0 raised it; it is raised in all of them, so that none waits for one that has gone.
        """
        problem = None
        if self.rank == 0:
            try:
                action()
            except UserError as error:
                problem = str(error)
        problem = self.broadcast(problem)
        if problem is not None:
            raise UserError(problem)

    def wait_for(self, condition: Callable[[], bool], every: float = _SECONDS_BETWEEN_LOOKS) -> None:
        """Waits as long as it takes. A barrier would not: it gives up after half an hour, and a process that goes on
        after all others had finished takes longer.

        Args:
            condition: what is waited for.
            every: seconds between looks.

        Raises:
            UserError: this process was asked to end.
        """
        while not condition():
            if self.stopping():
                raise UserError("stopped before all processes were done: start again with the same settings to go on")
            time.sleep(every)


ALONE = Processes()


def _leave_the_group() -> None:
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _gathered(value: Any) -> list[Any]:
    values = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(values, value)
    return values
