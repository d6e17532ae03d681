"""What a calibration has found out, as plain values that JSON holds. Times are seconds, sizes bytes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Extraction:
    """What is left of making an activation store, and how fast a slice of it was.

    Attributes:
        store: its folder.
        tokens: that are to be read.
        read_tokens: of the slice.
        read_seconds: in which those were tokenised, read by the model and appended.
        bytes: that the store will have.
        there: bytes that an interrupted extraction has left there and that are kept.
        write_rate: bytes/s at which the slice was written and hashed.
        verify_rate: bytes/s at which it was hashed again before training.
        load_seconds: until the model was there.
        exact: whether the tokens were counted, not extrapolated.
        buffers: bytes of memory that the whole store's writing needs beyond the slice's.
        peak_bytes: of memory while the slice was made.
    """

    store: str
    tokens: int
    read_tokens: int
    read_seconds: float
    bytes: int
    there: int
    write_rate: float
    verify_rate: float
    load_seconds: float
    exact: bool
    buffers: int
    peak_bytes: int


@dataclass(frozen=True)
class Streaming:
    """Training straight from a model that reads the next pool of rows meanwhile. Rates are rows/s of one rank.

    Attributes:
        pool_rows: training rows of a whole pool.
        batch_rows: of a batch.
        read_alone: while nothing else was computed.
        read_beside: while training went on.
        ahead: whether it reads meanwhile at all.
        pass_rows: that are trained on of a pass over the text; None where nobody knows.
        fills: whether passes after the first read the store that it fills.
        pool_bytes: memory of a whole pool.
        calibrated_pool_bytes: of one while this was measured.
        fill: folder of the store that fills; None without one.
        fill_bytes: that it will have.
        fill_there: bytes of it that are there.
    """

    pool_rows: float
    batch_rows: int
    read_alone: float
    read_beside: float
    ahead: bool = True
    pass_rows: float | None = None
    fills: bool = False
    pool_bytes: int = 0
    calibrated_pool_bytes: int = 0
    fill: str | None = None
    fill_bytes: int = 0
    fill_there: int = 0


@dataclass(frozen=True)
class Measured:
    """What some steps of the real training took, of the slowest rank.

    Attributes:
        start: from the command to the first epoch, without what was calibrated in between.
        warm_up: what the first batches took longer than others, the making of the first batch included.
        batch: a training batch.
        batches: how many were measured.
        warm_batches: how many were left out before.
        paced: what a batch has over all ranks of what speed is counted in.
        paced_in: that, such as tokens.
        ranks: processes that train together.
        nodes: machines that they are on.
        validation: what a validation takes whatever its length.
        validation_batch: a batch of it.
        validation_batches: how many were measured.
        epoch: what the end of an epoch takes beside validation, saves and predictions.
        save: a checkpoint.
        moment: predictions of samples, once.
        sample: the sample that dead latents are started anew from, once, in validation batches.
        mining: of negatives, once.
        finish: from the end of the training to that of the process.
        checkpoint_bytes: of one.
        record_bytes: of settings and records of a run.
        log_step_bytes: of a step that loggers are given.
        log_epoch_bytes: of what an epoch and its validation leave.
        log_once_bytes: of what is left once.
        moment_bytes: of predictions of samples, once.
        host_bytes: the most memory that all ranks of a node together held, what they map of files left out.
        device: name of the accelerator; None on the CPU.
        device_bytes: the most memory that a rank held on it.
        rows_at_once: what the memory guard had to cut batches to; None where they stayed whole.
        start_step: optimiser steps that are done.
        metrics: names of what was logged.
    """

    start: float
    warm_up: float
    batch: float
    batches: int
    warm_batches: int
    paced: float
    paced_in: str
    ranks: int = 1
    nodes: int = 1
    validation: float = 0.0
    validation_batch: float = 0.0
    validation_batches: int = 0
    epoch: float = 0.0
    save: float = 0.0
    moment: float = 0.0
    sample: float = 0.0
    mining: float = 0.0
    finish: float = 0.0
    checkpoint_bytes: int = 0
    record_bytes: int = 0
    log_step_bytes: float = 0.0
    log_epoch_bytes: float = 0.0
    log_once_bytes: float = 0.0
    moment_bytes: int = 0
    host_bytes: int = 0
    device: str | None = None
    device_bytes: int = 0
    rows_at_once: int | None = None
    start_step: int = 0
    metrics: tuple[str, ...] = ()
