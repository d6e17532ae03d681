"""The settings of a job as `estimates` takes them: plain values of the whole run, not of its calibration."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from datetime import timedelta
from typing import Any

from jsonargparse import Namespace
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint, Timer

from callbacks import CheckpointRetention, DeadNeuronResampling, SamplePredictions, SaveCheckpoints
from run_store.retention import RetentionRules

NEVER_ENDING = 2**40
"""Batches of an epoch of data that has no length."""


def said_by_callbacks(trainer: Trainer) -> dict[str, Any]:
    """What callbacks say of `estimates.Schedule`, by name."""
    said: dict[str, Any] = {"saves": trainer.checkpoint_callback is not None}
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, SaveCheckpoints):
            said |= {
                "save_every_steps": _plain(callback.every_n_steps),
                "save_every_minutes": _plain(callback.every_n_minutes),
                "save_at": sorted(map(int, callback.at_steps)),
            }
        elif isinstance(callback, DeadNeuronResampling):
            said["resample_at"] = [float(when) for when in callback.at]
        elif isinstance(callback, SamplePredictions) and callback.enabled:
            said |= {"samples": callback.sample_frequency, "samples_every": _plain(callback.every_n_steps)}
    return said


def retention_of(trainer: Trainer) -> dict[str, Any] | None:
    """What thins out checkpoints; None where nothing does.

    Raises:
        UserError: the budget is not a size.
    """
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, CheckpointRetention):
            return {"rules": asdict(callback.rules()), "deletes": callback.delete is True and not callback.dry_run}
        if isinstance(callback, ModelCheckpoint) and callback.save_top_k > 0:
            return {"rules": asdict(RetentionRules(callback.save_top_k)), "deletes": True}
    return None


def schedule_of(
    settings: Namespace, trainer: Trainer, rehearsal: Mapping[str, Any], said: Mapping[str, Any]
) -> dict[str, Any]:
    """`estimates.Schedule` as plain values.

    Args:
        settings: of the Trainer, as they are typed.
        trainer: the one that was calibrated, whose data has its true length unless the rehearsal says another.
        rehearsal: `datamodules.rehearsal.Rehearsal` as plain values.
        said: by callbacks.
    """
    data: Any = trainer.datamodule  # type: ignore[attr-defined]
    size = int(getattr(data, "batch_size", 1))
    overfit = settings.overfit_batches or None
    batches: float = trainer.num_training_batches
    if rehearsal["train_rows"] is not None:
        batches = limited(rehearsal["train_rows"] // size, overfit or settings.limit_train_batches)
    if rehearsal["validation_rows"] is not None:
        whole = -(-rehearsal["validation_rows"] // size)
    else:
        whole = _length(trainer.val_dataloaders)
    train_batches = NEVER_ENDING if math.isinf(batches) else int(batches)
    mining = getattr(data, "mining", None)
    return {
        "train_batches": train_batches,
        "validation_batches": limited(whole, overfit or settings.limit_val_batches),
        "accumulate": int(trainer.accumulate_grad_batches),
        "max_steps": int(trainer.max_steps),
        "max_epochs": -1 if trainer.max_epochs is None else int(trainer.max_epochs),
        **_validations(settings, train_batches),
        "log_every_steps": int(trainer.log_every_n_steps) if trainer.loggers else 0,  # type: ignore[attr-defined]
        "mine_every_epochs": None if mining is None else int(mining.refresh_every_n_epochs or 0),
        **said,
    }


def _validations(settings: Namespace, train_batches: int) -> dict[str, Any]:
    interval = settings.val_check_interval
    every = train_batches
    if isinstance(interval, int) and not isinstance(interval, bool):
        every = interval
    elif isinstance(interval, float):
        every = max(1, int(train_batches * interval))
    epochs = settings.check_val_every_n_epoch
    return {"validate_every_batches": every, "validate_every_epochs": None if epochs is None else int(epochs)}


def limited(length: int, limit: float | int | None) -> int:
    """Batches that the Trainer reads of so many."""
    if limit is None:
        return length
    return min(length, limit) if isinstance(limit, int) else int(length * limit)


def seconds_of(max_time: Any) -> float | None:
    """Those of `trainer.max_time`, in every form that it has; None without one."""
    if max_time is None:
        return None
    if isinstance(max_time, timedelta):
        return max_time.total_seconds()
    kept = Timer(dict(max_time) if isinstance(max_time, Namespace | Mapping) else max_time)
    return kept._duration


def _length(loaders: Any) -> int:
    if loaders is None:
        return 0
    return sum(map(len, loaders)) if isinstance(loaders, list | tuple) else len(loaders)


def _plain(value: Any) -> Any:
    return None if value is None else float(value) if isinstance(value, float) else int(value)
