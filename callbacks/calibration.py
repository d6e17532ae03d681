"""Some steps of a training, timed, so that the whole of it can be foreseen."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, TypeVar

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from torch import distributed

from callbacks.dead_neuron_resampling import DeadNeuronResampling
from callbacks.progress import Paced
from callbacks.sample_predictions import SamplePredictions
from callbacks.save_checkpoints import SaveCheckpoints
from estimates.machine import PeakWatch
from run_store.layout import CHECKPOINTS_NAME
from run_store.predictions import STORE_NAME

Of = TypeVar("Of", bound=Callback)
LOOK_EVERY = 5
"""Batches between two looks at the clock, on which ranks have to agree."""


class Calibration(Callback):
    """Times a training from its start to the end of its first epoch, which it makes short: some batches to warm up,
    some that count, a save, a validation, what callbacks do then, and the end. It stands before all other callbacks.

    What went on between two batches that is no part of a step (the end of an epoch in a small store) is left out.

    Args:
        warm_up: batches that do not count.
        batches: that count.
        seconds: after which fewer do, at least `least`.
        least: batches that count in any case.
        memory: what looks at that of this process.
    """

    def __init__(
        self,
        warm_up: int = 5,
        batches: int = 40,
        seconds: float = 20.0,
        least: int = 10,
        memory: PeakWatch | None = None,
    ) -> None:
        self.warm_up, self.batches, self.seconds, self.least = warm_up, batches, seconds, least
        self.found: dict[str, Any] = {}
        """What of `estimates.Measured` this rank has measured, by name."""
        self.train_ended: float = 0.0
        """By time.time()."""
        self.memory = memory
        self._device = torch.device("cpu")
        self._at: dict[str, float] = {}
        self._seen, self._counted, self._done, self._paced = 0, 0, 0, 0
        self._away, self._away_in_warm_up = 0.0, 0.0
        self._left: float | None = None
        self._spent: list[float] = []
        self._validated = 0
        self._read: dict[str, int] = {}
        self._steps: dict[str, int] = {}
        self._sizes: dict[str, int] = {}

    # ---- from the start to the last batch that counts

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._device = pl_module.device
        self._folder = Path(str(trainer.log_dir))  # all ranks must ask together
        for saver in _all(trainer, SaveCheckpoints):
            saver.every_n_steps, saver.every_n_minutes, saver.at_steps = None, None, frozenset()
        for samples in _all(trainer, SamplePredictions):
            samples.sample_frequency, samples.every_n_steps = "epoch", None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._done = trainer.global_step
        self._begin(trainer)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # a run that goes on inside an epoch does not come here before its first batch
        if not self._seen:
            self._begin(trainer)

    def _begin(self, trainer: Trainer) -> None:
        self._mark(trainer, "epoch")
        self.found["started"] = time.time()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        if self._left is not None:
            self._away += time.perf_counter() - self._left
            self._left = None
        if not self._seen:
            self._mark(trainer, "first")
        if self._seen == self.warm_up:
            self._away_in_warm_up, self._away, self._paced = self._away, 0.0, 0
            self._note_size(trainer, "begun")
            self._mark(trainer, "begun")
        elif self._seen > self.warm_up and "closed" not in self._at and self._is_enough(trainer):
            self._close(trainer)

    def _is_enough(self, trainer: Trainer) -> bool:
        counted = self._seen - self.warm_up
        if counted >= self.batches:
            return True
        accumulated: int = trainer.accumulate_grad_batches
        if counted < self.least or counted % LOOK_EVERY or counted % accumulated:
            return False
        late = time.perf_counter() - self._at["begun"] > self.seconds
        return bool(trainer.strategy.reduce_boolean_decision(late, all=False))

    def _close(self, trainer: Trainer) -> None:
        self._counted = self._seen - max(0, self.warm_up if "begun" in self._at else 0)
        self._mark(trainer, "closed")
        self._note_size(trainer, "closed")

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Saves after the batch behind the last that counts, and ends the epoch."""
        self._seen += 1
        self._paced += pl_module.pace_of(batch) if isinstance(pl_module, Paced) else 1
        if trainer.is_last_batch:
            self._left = self._now()
        if "closed" in self._at and "saved" not in self._at and self._seen % trainer.accumulate_grad_batches == 0:
            self._save(trainer)
            trainer.should_stop = True

    def _save(self, trainer: Trainer) -> None:
        for saver in _all(trainer, SaveCheckpoints)[:1]:
            before = self._now()
            if saver.save_now(trainer) is not None:
                self._at["saved"] = self.found["save"] = time.perf_counter() - before
        self._at.setdefault("saved", 0.0)

    # ---- the end of the epoch

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.sanity_checking:
            self._at["validation"], self._validated = self._now(), 0

    def on_validation_batch_start(self, trainer: Trainer, *_: Any) -> None:
        if not trainer.sanity_checking and not self._validated:
            self._at["validating"] = self._now()

    def on_validation_batch_end(self, trainer: Trainer, *_: Any) -> None:
        self._validated += not trainer.sanity_checking

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.sanity_checking:
            self._at["validated"] = self._now()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        now = self._now()
        if self._validated:
            batches = self._at["validated"] - self._at["validating"]
            self.found |= {
                "validation": now - self._at["validation"] - batches,
                "validation_batch": batches / self._validated,
                "validation_batches": self._validated,
            }
        self._at["epoch_end"] = now
        self._spent = [samples.seconds for samples in _all(trainer, SamplePredictions)]

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Sums up."""
        now, self.train_ended = self._now(), time.time()
        if "closed" not in self._at:  # the run was shorter
            self._close(trainer)
        moment = sum(samples.seconds for samples in _all(trainer, SamplePredictions)) - sum(self._spent or [0.0])
        saved_there = self.found.get("save", 0.0)
        self._sum_up_steps(trainer, pl_module)
        self.found |= {
            "host_bytes": 0 if self.memory is None else self.memory.restart(),
            "device_bytes": self._on_the_device(),
            "device_total": torch.cuda.get_device_properties(self._device).total_memory
            if self._device.type == "cuda"
            else None,
            "device": torch.cuda.get_device_name(self._device) if self._device.type == "cuda" else None,
            "rows_at_once": self._rows_at_once(pl_module),
            "epoch": max(0.0, now - self._at.get("epoch_end", now) - moment),
            "moment": moment,
            "save": saved_there,
            "sample": self._sampled(trainer),
            "start_step": self._done,
            "metrics": sorted(trainer.callback_metrics),
        }
        self._note_size(trainer, "ended")

    def _sum_up_steps(self, trainer: Trainer, pl_module: LightningModule) -> None:
        begun = self._at.get("begun", self._at.get("first", self._at["closed"]))
        counted = max(1, self._counted)
        batch = max(0.0, self._at["closed"] - begun - self._away) / counted
        warm = min(self._seen, self.warm_up) if "begun" in self._at else 0
        before = begun - self._at["epoch"] - self._away_in_warm_up
        fetched = self._at.get("first", begun) - self._at["epoch"]
        self.found |= {
            "batch": batch,
            "batches": self._counted,
            "warm_batches": warm,
            "warm_up": max(0.0, before - warm * batch),
            "first_batch": fetched,
            "paced": self._paced * trainer.world_size / max(1, self._seen - warm),
            "paced_in": pl_module.paced_in if isinstance(pl_module, Paced) else "batches",
            **self._reading(),
        }

    def _on_the_device(self) -> int:
        """The most that the allocator has asked for, and what the driver holds for this process beside it."""
        if self._device.type != "cuda":
            return 0
        free, total = torch.cuda.mem_get_info(self._device)
        beside = max(0, total - free - torch.cuda.memory_reserved(self._device))
        return torch.cuda.max_memory_reserved(self._device) + beside

    @staticmethod
    def _rows_at_once(pl_module: Any) -> int | None:
        members = pl_module.members.by_name.values() if hasattr(pl_module, "members") else ()
        sizes = [member.memory.rows_at_once for member in members if member.memory.rows_at_once is not None]
        return min(sizes, default=None)

    def _sampled(self, trainer: Trainer) -> float:
        """Length, in validation batches, of the sample that dead latents start anew from; each rank reads all of it."""
        size = getattr(trainer.datamodule, "batch_size", 0)  # type: ignore[attr-defined]
        rows = max((callback.rows for callback in _all(trainer, DeadNeuronResampling)), default=0)
        return rows * trainer.world_size / size if size else 0.0

    # ---- what is looked at on the way

    def _now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()

    def _mark(self, trainer: Trainer, moment: str) -> None:
        self._at[moment] = self._now()
        self._steps[moment] = trainer.global_step
        self._note_reading(trainer, moment)

    def _note_reading(self, trainer: Trainer, moment: str) -> None:
        self._read[moment] = int(getattr(trainer.datamodule, "rows_read", 0))  # type: ignore[attr-defined]

    def _reading(self) -> dict[str, float]:
        """Rows/s that a model has read: before the first batch, and beside those that count."""
        rates = {}
        for name, begin, end in (("read_alone", "epoch", "first"), ("read_beside", "begun", "closed")):
            if begin in self._read and end in self._read and self._at[end] > self._at[begin]:
                rates[name] = (self._read[end] - self._read[begin]) / (self._at[end] - self._at[begin])
        return rates

    def _note_size(self, trainer: Trainer, moment: str) -> None:
        if not trainer.is_global_zero:
            return
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.flush()
        self._sizes[moment] = _bytes_below(self._folder, without=(CHECKPOINTS_NAME, STORE_NAME))

    def sizes(self, every: int) -> dict[str, float]:
        """Bytes that have been written, by their names in `estimates.Measured`. To be asked on the first rank once all
        is over.

        Args:
            every: optimiser steps between two that loggers are given.
        """
        checkpoints = [path for path in (self._folder / CHECKPOINTS_NAME).glob("*") if path.exists()]
        steps = self._steps.get("begun", 0), self._steps.get("closed", 0)
        logged = steps[1] // every - steps[0] // every if every > 0 else 0
        begun, closed = self._sizes.get("begun", 0), self._sizes.get("closed", 0)
        ended = self._sizes.get("ended", closed)
        a_step = (closed - begun) / logged if logged else 0.0
        return {
            "checkpoint_bytes": max(map(_bytes_below, checkpoints), default=0),
            "log_step_bytes": a_step,
            "log_epoch_bytes": max(0, ended - closed),
            "log_once_bytes": begun + _bytes_below(self._folder, without=(CHECKPOINTS_NAME, STORE_NAME)) - ended,
            "moment_bytes": sum(path.stat().st_size for path in self._folder.glob(f"{STORE_NAME}*")),
        }


def slowest(found: dict[str, Any]) -> dict[str, Any]:
    """What was measured of the rank that took longest for a batch; memory is the sum over ranks, on an accelerator the
    largest. To be asked on every rank while they are connected.
    """
    if not (distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1):
        return found
    everyone: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(everyone, found)
    slow = max(everyone, key=lambda one: one["batch"])
    return {
        **slow,
        "host_bytes": sum(one["host_bytes"] for one in everyone),
        "device_bytes": max(one["device_bytes"] for one in everyone),
    }


def _all(trainer: Trainer, kind: type[Of]) -> list[Of]:
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    return [callback for callback in callbacks if isinstance(callback, kind)]


def _bytes_below(folder: Path, without: tuple[str, ...] = ()) -> int:
    if folder.is_file():
        return folder.stat().st_size
    return sum(
        path.stat().st_size
        for path in folder.rglob("*")
        if path.is_file() and not any(path.relative_to(folder).parts[0].startswith(name) for name in without)
    )
