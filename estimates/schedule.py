"""How often what happens in a training, from its settings alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from run_store import UserError

ENDLESS = -1


@dataclass(frozen=True)
class Schedule:
    """When things happen, as plain values. Batches are those of one rank.

    Attributes:
        train_batches: of an epoch.
        validation_batches: of a validation; 0 without one.
        accumulate: batches of an optimiser step; what is left at the end of an epoch is a step, too.
        max_steps: optimiser steps of the whole run, -1 for no end.
        max_epochs: likewise.
        validate_every_batches: training batches between two validations, at most those of an epoch where
            `validate_every_epochs` is set.
        validate_every_epochs: epochs between two that validate; None counts batches over all epochs.
        log_every_steps: optimiser steps between two that loggers are given; 0 for none.
        saves: whether anything is saved at all.
        save_every_steps: optimiser steps between two saves, beside those of epochs and validations.
        save_every_minutes: minutes between two of them.
        save_at: further steps that are saved.
        resample_at: steps after which dead latents start anew, below 1 as a share of the run.
        samples: when predictions of samples are made; None for never.
        samples_every: optimiser steps between two of them, where they go by the step.
        mine_every_epochs: epochs between two minings of negatives; 0 for once a run, None for never.
    """

    train_batches: int
    validation_batches: int = 0
    accumulate: int = 1
    max_steps: int = ENDLESS
    max_epochs: int = ENDLESS
    validate_every_batches: int = 1
    validate_every_epochs: int | None = 1
    log_every_steps: int = 50
    saves: bool = True
    save_every_steps: int | None = None
    save_every_minutes: float | None = None
    save_at: Sequence[int] = ()
    resample_at: Sequence[float] = ()
    samples: Literal["epoch", "step", "train_end"] | None = None
    samples_every: int | None = None
    mine_every_epochs: int | None = None

    @property
    def epoch_steps(self) -> int:
        """Optimiser steps of an epoch."""
        return -(-self.train_batches // self.accumulate)

    @property
    def total_steps(self) -> int:
        """Optimiser steps of the whole run.

        Raises:
            UserError: it has no end.
        """
        ends = []
        if self.max_steps != ENDLESS:
            ends.append(self.max_steps)
        if self.max_epochs != ENDLESS:
            ends.append(self.max_epochs * self.epoch_steps)
        if not ends:
            raise UserError(
                "trainer.max_steps and trainer.max_epochs are both -1, and what a training without an end takes cannot "
                "be foreseen: set one of them"
            )
        return min(ends)

    def batches_until(self, step: int) -> int:
        """Training batches until so many optimiser steps are made."""
        epochs, steps = divmod(step, self.epoch_steps) if self.train_batches else (0, 0)
        return epochs * self.train_batches + min(steps * self.accumulate, self.train_batches)

    def steps_until(self, batches: int) -> int:
        """Optimiser steps that so many training batches make."""
        epochs, rest = divmod(batches, self.train_batches) if self.train_batches else (0, 0)
        return epochs * self.epoch_steps + rest // self.accumulate


@dataclass(frozen=True)
class Counts:
    """What is still to come of a run.

    Attributes:
        total_steps: optimiser steps of the whole run.
        steps: those that are left.
        batches: training batches that are left.
        epochs: ends of epochs that are left, a last one that is cut short among them.
        validated: the steps after which validations begin.
        validations: how many there are.
        logged: steps that loggers are given.
        saved: the steps that are saved.
        moments: at which predictions of samples are made.
        resamplings: of dead latents.
        minings: of negatives.
    """

    total_steps: int
    steps: int
    batches: int
    epochs: int
    validated: frozenset[int]
    validations: int
    logged: int
    saved: tuple[int, ...]
    moments: int
    resamplings: int
    minings: int


def counted(schedule: Schedule, done: int = 0) -> Counts:
    """What is left of a run after `done` optimiser steps.

    Raises:
        UserError: the run has no end.
    """
    total = schedule.total_steps
    done = min(done, total)
    batches = schedule.batches_until(total) - schedule.batches_until(done)
    epochs = _ends(schedule, total) - done // schedule.epoch_steps if total > done else 0
    validating = _validating_batches(schedule, schedule.batches_until(done), schedule.batches_until(total))
    validated = frozenset(schedule.steps_until(batch) for batch in validating)
    every = schedule.log_every_steps
    resampled = {max(1, int(when * total) if when < 1 else int(when)) for when in schedule.resample_at}
    return Counts(
        total_steps=total,
        steps=total - done,
        batches=batches,
        epochs=epochs,
        validated=validated,
        validations=len(validating),
        logged=total // every - done // every if every > 0 else 0,
        saved=_saved(schedule, done, total, validated),
        moments=_moments(schedule, done, total, epochs),
        resamplings=sum(done < step <= total for step in resampled),
        minings=_minings(schedule, done, total),
    )


def _ends(schedule: Schedule, step: int) -> int:
    """Epochs that have ended, or are cut short, by a step that is the last."""
    return -(-step // schedule.epoch_steps)


def _validating_batches(schedule: Schedule, first: int, last: int) -> list[int]:
    """After which training batches, counted over all epochs, a validation begins: those in (first, last]."""
    every, epoch = schedule.validate_every_batches, schedule.train_batches
    if not schedule.validation_batches or not epoch or every < 1:
        return []
    if schedule.validate_every_epochs is None:
        return list(range((first // every + 1) * every, last + 1, every))
    return [
        begin + batch
        for number, begin in enumerate(range(0, last, epoch))
        if (number + 1) % schedule.validate_every_epochs == 0
        for batch in range(every, epoch + 1, every)
        if first < begin + batch <= last
    ]


def _saved(schedule: Schedule, done: int, total: int, validated: frozenset[int]) -> tuple[int, ...]:
    if not schedule.saves or total <= done:
        return ()
    steps = {*validated, *schedule.save_at, total}
    steps |= set(range(schedule.epoch_steps, total + 1, schedule.epoch_steps))
    if schedule.save_every_steps:
        steps |= set(range(schedule.save_every_steps, total + 1, schedule.save_every_steps))
    return tuple(sorted(step for step in steps if done < step <= total))


def _moments(schedule: Schedule, done: int, total: int, epochs: int) -> int:
    if total <= done or schedule.samples is None:
        return 0
    if schedule.samples == "step":
        return total // schedule.samples_every - done // schedule.samples_every if schedule.samples_every else 0
    return epochs if schedule.samples == "epoch" else 1


def _minings(schedule: Schedule, done: int, total: int) -> int:
    every = schedule.mine_every_epochs
    if every is None or total <= done:
        return 0
    first, last = done // schedule.epoch_steps, (total - 1) // schedule.epoch_steps
    if not every:
        return int(done == 0)
    # one that goes on has those of the epoch that it stands in
    begun = range(first if done == 0 else first + 1, last + 1)
    return sum(epoch % every == 0 for epoch in begun)
