"""Which checkpoints of a run stay on the disk."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Literal

from jsonargparse.typing import NonNegativeFloat, NonNegativeInt, PositiveInt
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

from callbacks.checkpoint_io import AtomicCheckpointIO
from run_store import UserError
from run_store.checkpoints import StoredCheckpoint, in_words, list_checkpoints, newest_valid, remove_checkpoint
from run_store.claims import needed_by_runs
from run_store.retention import RetentionPlan, RetentionRules, parse_size, plan_retention


class CheckpointRetention(Callback):
    """Thins out RUN_FOLDER/checkpoints after each save by the rules of `run_store.retention`, whole steps only.

    Nothing is deleted unless `delete` is true: without it, what would go is told. The checkpoint that a resume would
    take, the one that this run has gone on from until it has saved its own, those that other unfinished runs start from
    and one that is being written stay whatever the rules say.

    Args:
        keep_last: the newest n, at least one.
        keep_best: the best k by `metric`.
        metric: a logged metric, such as val/fvu; a checkpoint for which it is missing or not a number is never best. Of
            a sweep the best k of each member stay, too, by the metric of that name of its own (NAME/val/fvu); the name
            of one of these keeps the best of that member alone.
        mode: whether the lowest or the highest value is best.
        tie: which of two equally good checkpoints is better.
        milestone_every: of every so many optimiser steps, the first checkpoint at or after the multiple stays.
        budget: room for all checkpoints together, such as 10GB; at least that of two. It overrules the rules above.
        minimum_age_hours: a checkpoint younger than this stays, even over the budget.
        delete: true deletes; false tells what would go.
        dry_run: true tells what would go even where `delete` is true.
    """

    def __init__(
        self,
        keep_last: PositiveInt = 2,
        keep_best: NonNegativeInt = 0,
        metric: str | None = None,
        mode: Literal["min", "max"] = "min",
        tie: Literal["newer", "older"] = "newer",
        milestone_every: PositiveInt | None = None,
        budget: str | int | None = None,
        minimum_age_hours: NonNegativeFloat = 0.0,
        delete: bool = False,
        dry_run: bool = False,
    ) -> None:
        self.keep_last = keep_last
        self.keep_best = keep_best
        self.metric = metric
        self.mode = mode
        self.tie = tie
        self.milestone_every = milestone_every
        self.budget = budget
        self.minimum_age_hours = minimum_age_hours
        self.delete = delete
        self.dry_run = dry_run
        self._folder: Path | None = None
        self._seen: Path | None = None
        self._told: frozenset[Path] = frozenset()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Raises:
        UserError: a setting makes no sense.
        """
        for name in ("delete", "dry_run"):
            # any other value would be true or false by accident: "false" is true
            if not isinstance(getattr(self, name), bool):
                raise UserError(f"CheckpointRetention.{name} is {getattr(self, name)!r}: write true or false")
        self.rules().check()

    def rules(self) -> RetentionRules:
        """The settings as rules.

        Raises:
            UserError: the budget is not a size.
        """
        return RetentionRules(
            self.keep_last,
            self.keep_best,
            self.metric,
            self.mode,
            self.tie,
            self.milestone_every,
            None if self.budget is None else parse_size(self.budget),
            3600 * self.minimum_age_hours,
        )

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # asked here because all ranks must ask together, and only the first one writes and thins out
        self._folder = None if trainer.log_dir is None else Path(trainer.log_dir)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """What an interrupted run could not thin out any more."""
        self._apply(trainer)

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        # here every callback's save of the step before has been begun, whatever the order of the callbacks
        if _newest_written(trainer) != self._seen:
            self._apply(trainer)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._apply(trainer)

    def _apply(self, trainer: Trainer) -> None:
        self._seen = _newest_written(trainer)
        if self._folder is None or not trainer.is_global_zero:
            return
        folder = self._folder / "checkpoints"
        if not (checkpoints := list_checkpoints(folder)):
            return
        needed = self._needed(trainer) | needed_by_runs(folder.parent)
        plan = plan_retention(checkpoints, self.rules(), time.time(), self._resumable(checkpoints), needed)
        if self.delete is True and self.dry_run is False:
            for checkpoint in plan.removed:
                remove_checkpoint(checkpoint.path)
        elif frozenset(checkpoint.path for checkpoint in plan.removed) - self._told:
            self._told = frozenset(checkpoint.path for checkpoint in plan.removed)
            rank_zero_info(self._what_would_go(plan))
        if plan.over_budget:
            rank_zero_warn(
                f"checkpoints take {in_words(plan.over_budget)} more than the budget of {self.budget}: "
                "what a resume needs and what is too young stays"
            )

    def _resumable(self, checkpoints: list[StoredCheckpoint]) -> Path | None:
        """The newest valid one. What this process has written itself need not be read again."""
        if checkpoints[-1].path == self._seen:
            return self._seen
        try:
            return newest_valid(checkpoints[-1].path.parent).checkpoint.path
        except UserError:
            return None

    def _needed(self, trainer: Trainer) -> set[Path]:
        io = trainer.strategy.checkpoint_io
        being_written = getattr(io, "writing", None)
        resumed_from = Path(trainer.ckpt_path) if trainer.ckpt_path is not None and self._seen is None else None
        return {path for path in (being_written, resumed_from) if path is not None}

    def _what_would_go(self, plan: RetentionPlan) -> str:
        names = ", ".join(checkpoint.path.name for checkpoint in plan.removed)
        why = "dry_run is true" if self.dry_run else "delete is false"
        return f"CheckpointRetention would delete {names} ({in_words(plan.freed)}); nothing is deleted while {why}"


def _newest_written(trainer: Trainer) -> Path | None:
    io = trainer.strategy.checkpoint_io
    return io.newest if isinstance(io, AtomicCheckpointIO) else None
