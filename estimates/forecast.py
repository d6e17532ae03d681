"""What a job will take, from what is left of it and from what a few of its steps took: a pure function."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from estimates.checkpoints import Retention, kept
from estimates.measured import Extraction, Measured, Streaming
from estimates.schedule import Counts, Schedule, counted
from estimates.streaming import step_alone, streamed_seconds
from run_store.checkpoints import StoredCheckpoint, in_words


@dataclass(frozen=True)
class Part:
    """One figure of a prediction.

    Attributes:
        name: of what.
        amount: seconds or bytes.
        how: how it was derived, for a person.
    """

    name: str
    amount: float
    how: str


@dataclass(frozen=True)
class Forecast:
    """What a job will take from now to its end.

    Attributes:
        counts: what it will do.
        times: seconds, part by part.
        stores: bytes of stores of activations still to come, by folder.
        files: bytes in the folder of runs at the end, part by part.
        most_files: bytes there at any time, at most.
        host: bytes of memory on a node.
        device: bytes of memory on an accelerator; None on the CPU.
        training: seconds of it from the first step to the last.
        rate: of what speed is counted in a second while training, validations and saves left out.
        paced_in: what that is.
    """

    counts: Counts
    times: tuple[Part, ...]
    stores: tuple[Part, ...]
    files: tuple[Part, ...]
    most_files: float
    host: Part
    device: Part | None
    training: float
    rate: float
    paced_in: str

    @property
    def seconds(self) -> float:
        """Of the whole job."""
        return sum(part.amount for part in self.times)

    @property
    def bytes(self) -> float:
        """On the disks at the end."""
        return sum(part.amount for part in (*self.stores, *self.files))


def forecast(
    schedule: Schedule,
    measured: Measured,
    retention: Retention | None = None,
    extractions: Sequence[Extraction] = (),
    streaming: Streaming | None = None,
    present: Sequence[StoredCheckpoint] = (),
) -> Forecast:
    """Foresees a job.

    Args:
        schedule: when things happen, with the true lengths of epochs.
        measured: by a calibration.
        retention: what thins out checkpoints; None keeps all.
        extractions: the stores that are made before.
        streaming: where rows come straight from a model.
        present: checkpoints that the run has already.

    Raises:
        UserError: the job has no end, or a rule of retention makes no sense.
    """
    counts = counted(schedule, measured.start_step)
    others = _around_the_steps(schedule, counts, measured)
    steps = _steps(counts, measured, streaming, sum(part.amount for part in others))
    training = [steps, *others]
    times = [Part("start", measured.start, "once, as measured"), *(_extracting(one) for one in extractions)]
    files, most = _files(schedule, counts, measured, retention, present)
    return Forecast(
        counts=counts,
        times=(*times, *training, Part("end", measured.finish, "once, as measured")),
        stores=(*(_store(one) for one in extractions), *_filled(streaming)),
        files=files,
        most_files=most,
        host=_host(measured, extractions, streaming),
        device=None if measured.device is None else _device(measured),
        training=sum(part.amount for part in training),
        rate=measured.paced * counts.batches / steps.amount if steps.amount else 0.0,
        paced_in=measured.paced_in,
    )


def _steps(counts: Counts, measured: Measured, streaming: Streaming | None, others: float) -> Part:
    milliseconds = f"{counts.batches:,} batches × {1e3 * measured.batch:.1f} ms"
    of = f"the mean of {measured.batches} after {measured.warm_batches} to warm up"
    if not counts.batches:
        return Part("training steps", 0.0, "none are left")
    if streaming is None:
        seconds = counts.batches * measured.batch + measured.warm_up
        return Part("training steps", seconds, f"{milliseconds}, {of}, and {measured.warm_up:.1f} s to warm up")
    streamed = counts.batches
    if streaming.fills and streaming.pass_rows is not None:
        streamed = min(streamed, int(streaming.pass_rows // streaming.batch_rows))
    seconds = streamed_seconds(streamed, measured.batch, streaming, others / counts.batches)
    seconds += (counts.batches - streamed) * step_alone(measured.batch, streaming)
    how = (
        f"{milliseconds}, {of}, beside a model that reads {streaming.read_alone:,.0f} rows/s alone and "
        f"{streaming.read_beside:,.0f} meanwhile"
    )
    return Part("training steps", seconds, how)


def _around_the_steps(schedule: Schedule, counts: Counts, measured: Measured) -> list[Part]:
    one = measured.validation + schedule.validation_batches * measured.validation_batch
    saves = len(counts.saved)
    if schedule.saves and schedule.save_every_minutes:
        saves += int(counts.batches * measured.batch / (60 * schedule.save_every_minutes))
    sample = min(measured.sample, schedule.train_batches * measured.ranks)
    parts = [
        Part(
            "validations",
            counts.validations * one,
            f"{counts.validations} × ({schedule.validation_batches} batches × "
            f"{1e3 * measured.validation_batch:.1f} ms, the mean of {measured.validation_batches}, and "
            f"{measured.validation:.2f} s)",
        ),
        Part("ends of epochs", counts.epochs * measured.epoch, f"{counts.epochs} × {measured.epoch:.2f} s, one tried"),
        Part("saves", saves * measured.save, f"{saves} × {measured.save:.2f} s, one tried"),
        Part("predictions", counts.moments * measured.moment, f"{counts.moments} × {measured.moment:.2f} s, one tried"),
        Part(
            "dead latents",
            OFTEN_DEAD * counts.resamplings * sample * measured.validation_batch,
            f"{counts.resamplings} looks; at each second one a sample of {sample:.0f} validation batches",
        ),
        Part("mining", counts.minings * measured.mining, f"{counts.minings} × {measured.mining:.1f} s, one tried"),
    ]
    return [part for part in parts if part.amount]


def _extracting(extraction: Extraction) -> Part:
    each = extraction.read_seconds / extraction.read_tokens if extraction.read_tokens else 0.0
    written = max(0, extraction.bytes - extraction.there)
    seconds = extraction.load_seconds + extraction.tokens * each
    seconds += written / extraction.write_rate if extraction.write_rate else 0.0
    seconds += extraction.bytes / extraction.verify_rate if extraction.verify_rate else 0.0
    rate = 1 / each if each else 0.0
    how = (
        f"{extraction.tokens:,} tokens{'' if extraction.exact else ' (extrapolated)'} at {rate:,.0f}/s, the mean of "
        f"{extraction.read_tokens:,}, and writing and hashing"
    )
    return Part(f"extraction of {extraction.store}", seconds, how)


def _store(extraction: Extraction) -> Part:
    there = f", of which {in_words(extraction.there)} are there" if extraction.there else ""
    return Part(extraction.store, max(0, extraction.bytes - extraction.there), f"rows × bytes of a row{there}")


def _filled(streaming: Streaming | None) -> list[Part]:
    if streaming is None or streaming.fill is None:
        return []
    return [Part(streaming.fill, max(0, streaming.fill_bytes - streaming.fill_there), "rows × bytes of a row")]


def _files(
    schedule: Schedule,
    counts: Counts,
    measured: Measured,
    retention: Retention | None,
    present: Sequence[StoredCheckpoint],
) -> tuple[tuple[Part, ...], float]:
    size = measured.checkpoint_bytes
    found = kept(counts.saved, counts.validated, size, retention, measured.metrics, measured.batch, present)
    there = sum(checkpoint.bytes for checkpoint in present)
    stay = f"{found.at_the_end} of {len(present) + len(counts.saved)} stay, {in_words(size)} each"
    ends = max(counts.epochs, counts.validations)
    logs = measured.log_once_bytes + counts.logged * measured.log_step_bytes + ends * measured.log_epoch_bytes
    # a step that is saved is an event in the record
    record = measured.record_bytes + len(counts.saved) * EVENT_BYTES
    others = [
        Part("curves and pictures", logs, f"{counts.logged:,} logged steps and {ends} ends of epochs, as one took"),
        Part("predictions of samples", counts.moments * measured.moment_bytes, f"{counts.moments} × one"),
        Part("settings and record", record, "config and events"),
    ]
    checkpoints = Part(
        "checkpoints",
        found.bytes - there,
        f"{stay}; at most {found.at_most} at a time{f'; {in_words(there)} are there' if there else ''}",
    )
    parts = tuple(part for part in (checkpoints, *others) if part.amount)
    return parts, found.most_bytes - there + sum(part.amount for part in others)


EVENT_BYTES = 1500
"""What a save adds to events.jsonl and metadata.json, with some thirty metrics."""


def _host(measured: Measured, extractions: Sequence[Extraction], streaming: Streaming | None) -> Part:
    training, reasons = measured.host_bytes, ["the most that the calibration held"]
    if streaming is not None and (more := streaming.pool_bytes - streaming.calibrated_pool_bytes) > 0:
        # one that is mixed, the rest of the one before, and one in the making
        training += MOST_POOLS * more * max(1, measured.ranks // measured.nodes)
        reasons.append(f"{MOST_POOLS} whole pools")
    extracting = max((one.peak_bytes + one.buffers for one in extractions), default=0)
    if extracting > training:
        reasons = ["the extraction with whole shards in memory"]
    how = f"{' and '.join(reasons)}; files that are mapped stand in the page cache beside it"
    return Part("memory of the host", max(training, extracting), how)


MOST_POOLS = 3
OFTEN_DEAD = 0.5
"""Share of the looks for dead latents that find any: two of the four of the main job."""


def _device(measured: Measured) -> Part:
    how = "the most that a rank held while it was calibrated"
    if measured.rows_at_once is not None:
        how += f"; batches had to be cut to {measured.rows_at_once} rows"
    return Part(f"memory of {measured.device}", measured.device_bytes, how)
