"""Keeps the record of a run while it trains."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn

from callbacks.checkpoint_io import AtomicCheckpointIO
from callbacks.graceful_stop import RunStopped
from run_store import UserError, write_json
from run_store.checkpoints import list_checkpoints
from run_store.completion import describe_outputs
from run_store.layout import CHECKPOINTS_NAME
from run_store.record import LIVE, Progress, RunRecord

METRICS_NAME = "metrics.json"


class RunRecordKeeper(Callback):
    """Writes what happens to a run into its metadata.json and events.jsonl (`run_store.record`), after each checkpoint
    and at each change of its status.

    Args:
        record: of the run, whose lock this process has and whose attempt has begun.
        reason_for: what an exception comes from, which may be what has happened to another process.
    """

    def __init__(
        self, record: RunRecord, reason_for: Callable[[BaseException], BaseException] = lambda error: error
    ) -> None:
        self.record = record
        self.reason_for = reason_for
        self._reported: Path | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Notes the accelerator and what the data is.

        Raises:
            UserError: a resumed run would go on with another activation store than it began with.
        """
        if torch.cuda.is_available():
            names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
            self.record.hardware["accelerators"] = names
        lineage: Callable[[], dict[str, str]] | None = getattr(trainer.datamodule, "lineage", None)  # type: ignore[attr-defined]
        if lineage is not None:
            self._note_data(lineage())

    def _note_data(self, found: dict[str, str]) -> None:
        known = self.record.lineage
        if known.store_sha256 not in (None, found["store_sha256"]):
            raise UserError(
                f"the run {self.record.folder} was trained on another activation store than the one that is in "
                f"{found['store']} now: put that one back ({known.store}), or start another run with "
                "--run.mode force_new"
            )
        self.record.lineage = replace(known, **found)
        if self.record.lineage != known:
            self.record.write("data", **found)  # trackers are told of it before the first step

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.record.move_to("running")
        self._report(trainer)

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        # here the step before is saved, whatever the order of the callbacks
        if _newest_written(trainer) != self._reported:
            self._report(trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Notes why the run has ended. What goes wrong there, on a full disk say, does not hide the exception."""
        try:
            if self.record.status == "running":
                self._report(trainer)
            self.end(self.reason_for(exception))
        except (UserError, OSError) as error:
            rank_zero_warn(f"the end of the run could not be recorded: {error}")

    def end(self, reason: BaseException) -> None:
        """Changes the status for a run that will not be complete, unless that is done."""
        if self.record.status not in LIVE:
            return
        if isinstance(reason, RunStopped | KeyboardInterrupt):
            wanted = reason.status if isinstance(reason, RunStopped) else "interrupted"
            # only a training can be paused
            self.record.move_to(wanted if self.record.status == "running" else "interrupted")
        else:
            self.record.fail(reason)

    def complete(self, trainer: Trainer) -> None:
        """Names the files that the run must have from now on: its newest checkpoint, settings and metrics.

        Raises:
            UserError: one of them is missing or damaged.
        """
        folder = self.record.folder
        if self.record.status == "initialising":  # there was nothing left to train
            self.record.move_to("running")
        self._report(trainer)
        write_json(folder / METRICS_NAME, _as_json(self.record.metrics))
        names = [METRICS_NAME, f"config.{len(self.record.attempts)}.yaml"]
        if checkpoints := list_checkpoints(folder / CHECKPOINTS_NAME):
            newest = checkpoints[-1].path
            names += [str(path.relative_to(folder)) for path in newest.iterdir() if path.is_file()]
        self.record.complete(describe_outputs(folder, names))

    def _report(self, trainer: Trainer) -> None:
        self._reported = _newest_written(trainer)
        most_steps = trainer.max_steps if trainer.max_steps > 0 else None
        progress = Progress(trainer.global_step, trainer.current_epoch, most_steps, trainer.max_epochs)
        self.record.report(progress, {name: float(value) for name, value in trainer.callback_metrics.items()})


def _newest_written(trainer: Trainer) -> Path | None:
    io = trainer.strategy.checkpoint_io
    return io.newest if isinstance(io, AtomicCheckpointIO) else None


def _as_json(metrics: dict[str, float]) -> dict[str, float | None]:
    return {name: value if value - value == 0 else None for name, value in sorted(metrics.items())}
