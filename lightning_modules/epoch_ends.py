"""Checkpoints from between two epochs."""

from __future__ import annotations

from typing import Any

from lightning.pytorch.loops.fit_loop import _FitLoop


def begin_next_epoch(fit_loop: dict[str, Any]) -> bool:
    """Has Lightning's progress in a checkpoint that was written at the end of an epoch say that the next one has begun.

    A training with a limit of steps that goes on is for Lightning always one in the middle of an epoch
    (`FitLoop.restarting`), whatever the checkpoint says. One from an epoch's end then has all of its batches behind it:
    Lightning calls an end of epoch again, counts an epoch more and reads the order of the one after the next, or gives
    the next epoch a single batch.

    Args:
        fit_loop: the state of the loop, which is changed.

    Returns:
        Whether it was from the end of an epoch: `begin_afresh` is to follow once the next one starts.
    """
    epochs, batches = fit_loop["epoch_progress"], fit_loop["epoch_loop.batch_progress"]
    now = epochs["current"]
    if not now["ready"] == now["processed"] == now["completed"] + 1:
        return False
    for counts in (epochs["current"], epochs["total"]):
        counts["completed"] = counts["processed"]
        counts["ready"] += 1
    batches["current"] = dict.fromkeys(batches["current"], 0)
    batches["is_last_batch"] = False
    return True


def begin_afresh(fit_loop: _FitLoop) -> None:
    """Has Lightning begin the epoch after such a checkpoint as any other. To be called when it starts.

    Otherwise Lightning takes a turn without a batch, which counts as a step for loggers and for schedules that follow a
    metric, and forgets to count this epoch as ready, so that the next end of an epoch is not known as one.
    """
    fit_loop.epoch_loop.restarting = False
    now = fit_loop.epoch_progress.current
    now.ready = now.completed + 1
