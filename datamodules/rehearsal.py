"""What a datamodule does before a job is foreseen: a slice of what it would make, in a folder that is thrown away."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch

from backbones import CapturedRows, RowExtractor
from backbones.row_filters import RowCounts, choose
from datamodules.shards import SHARD_BYTES, ActivationStore, Split, StoreWriter, is_store
from datamodules.shards.files import Place, in_words
from datamodules.shards.format import HookPoint
from datamodules.shards.journal import is_journal, parse_journal
from datamodules.shards.writing import writing_place
from datamodules.source import FINGERPRINT, describe_settings
from datamodules.text import TokenWindow
from datamodules.text_contexts import TextContexts
from estimates import Extraction
from remote_files import is_url
from run_store import UserError

PROVENANCE_BYTES = 12
FILE_BYTES = 400
"""Header of a file of a shard, and what the manifest says of it."""
MORE_WINDOWS = 4
"""Windows beyond the first that are read for the sake of validation alone."""


class Wanted(NamedTuple):
    """What a calibration asks for.

    Attributes:
        batches: of training.
        rows: that the model and its callbacks look at before and beside them.
        seconds: after which the tokenizer, and then the model, have read enough.
    """

    batches: int
    rows: int
    seconds: float


@dataclass(frozen=True)
class Rehearsal:
    """What to train on instead, and what is known of the true data.

    Attributes:
        settings: of the datamodule, with their values while it is calibrated.
        train_rows: that the true data will have, where it is not there yet.
        validation_rows: likewise.
        extractions: of stores that are missing.
        streaming: what is known of `estimates.Streaming` beforehand, by name, and `train_share`, the share of all rows
            that are trained on.
        same_order: whether a checkpoint's place in the true data means the same in these.
    """

    settings: dict[str, Any] = field(default_factory=dict)
    train_rows: int | None = None
    validation_rows: int | None = None
    extractions: tuple[Extraction, ...] = ()
    streaming: dict[str, Any] = field(default_factory=dict)
    same_order: bool = True


@runtime_checkable
class Rehearses(Protocol):
    """A datamodule that would leave something behind if it were only tried."""

    def rehearse(self, scratch: Path, wanted: Wanted) -> Rehearsal:
        """Makes in `scratch`, and nowhere else, what some batches need."""


@dataclass
class Survey:
    """What a pass of the tokenizer over a text has found."""

    tokens: int = 0
    windows: int = 0
    seconds: float = 0.0
    whole: bool = False
    """Whether it came to the end."""
    rows: dict[Split, int] = field(default_factory=lambda: {"train": 0, "validation": 0, "test": 0})
    """That the filters keep, outliers among them."""
    names: list[str] = field(default_factory=list)
    chosen: list[TokenWindow] = field(default_factory=list)

    @property
    def all_rows(self) -> int:
        return sum(self.rows.values())

    def scaled(self, number: int, text: TextContexts) -> int:
        """A number of the part that was read, for the whole text.

        Raises:
            UserError: how long that is, is not known.
        """
        if self.whole:
            return number
        if text.total_tokens is None:
            raise UserError(
                f"how long the text is, was not known after {self.seconds:.0f} s of reading it: set max_tokens of "
                "data.text, and the job can be foreseen"
            )
        return round(number * text.total_tokens / self.tokens)


def survey(
    extractor: RowExtractor,
    text: TextContexts,
    split_of: Callable[[str], Split],
    train_rows: int,
    validation_rows: int,
    seconds: float,
    most_windows: int | None = None,
) -> Survey:
    """Counts the rows of a text, document by document, and chooses the windows of a slice that has so many rows: the
    first ones, and some later ones where validation rows are missing.

    Args:
        extractor: whose filters say which tokens count.
        text: what is read.
        split_of: by a document's name.
        train_rows: of the slice, if the text has as many.
        validation_rows: likewise; 0 where it has no validation.
        seconds: after which it ends, once there is a slice.
        most_windows: after which it ends; None reads on.
    """
    found, filters, started = Survey(), extractor.filters, time.perf_counter()
    splits: list[Split] = []
    more, slice_rows = MORE_WINDOWS, {"train": 0, "validation": 0, "test": 0}
    for window in text.windows():
        names = text.document_names()
        splits += [split_of(name) for name in names[len(splits) :]]
        rows = _rows_of(window, filters, splits)
        for split, number in rows.items():
            found.rows[split] += number
        found.tokens += sum(int(batch.lengths.sum()) for batch in window.batches)
        found.windows += 1
        is_wanted = slice_rows["train"] < train_rows or not found.chosen
        if is_wanted or (more and slice_rows["validation"] < validation_rows and rows["validation"]):
            more -= not is_wanted
            found.chosen.append(window)
            for split, number in rows.items():
                slice_rows[split] += number
        is_enough = slice_rows["train"] >= train_rows and slice_rows["validation"] >= validation_rows
        late = time.perf_counter() - started > seconds
        if (is_enough and late) or found.windows == most_windows:
            break
    else:
        found.whole = True
    found.names = text.document_names()
    found.seconds = time.perf_counter() - started
    return found


def _rows_of(window: TokenWindow, filters: Any, splits: Sequence[Split]) -> dict[Split, int]:
    rows: dict[Split, int] = {"train": 0, "validation": 0, "test": 0}
    for batch in window.batches:
        kept = choose(batch, filters.keep_special_tokens, filters.keep_first_token, filters.positions, RowCounts()).kept
        for document, number in enumerate(torch.bincount(batch.documents[kept]).tolist()):
            if number:
                rows[splits[document]] += number
    return rows


def rehearse_store(
    extractor: RowExtractor,
    text: TextContexts,
    folder: Place,
    scratch: Path,
    found: Survey,
    least: int,
    seconds: float,
) -> Extraction:
    """Makes a store of a slice of a text in `scratch`, and says what the whole one would take.

    Args:
        extractor: what reads; it is loaded and given back.
        text: the whole of it.
        folder: where the whole store would be, a path or a URL.
        scratch: an empty folder, or a missing one.
        found: what a survey has chosen.
        least: rows that the slice has in any case.
        seconds: after which it has no more.

    Raises:
        UserError: the model cannot be loaded, the disk is full, or how long the text is, is not known.
    """
    started = time.perf_counter()
    extractor.load()
    points = {name: HookPoint(d, extractor.store_dtype) for name, d in extractor.shapes().items()}
    load_seconds = time.perf_counter() - started
    sizes, took = list[int](), list[float]()
    with StoreWriter(scratch, {name: point.d for name, point in points.items()}, extractor.store_dtype) as writer:
        begun = time.perf_counter()
        for window in found.chosen:
            before = time.perf_counter()
            # the last may be all that there is to validate on
            if writer.rows > least and before - begun > seconds and window is not found.chosen[-1]:
                continue
            rows: CapturedRows = extractor.read_window(window)
            writer.append(rows.activations, rows.tokens, rows.documents, rows.positions)
            sizes.append(sum(int(batch.lengths.sum()) for batch in window.batches))
            took.append(time.perf_counter() - before)
        before = time.perf_counter()
        stored = writer.rows
        writer.finish({**describe_settings(extractor, text), FINGERPRINT: text.fingerprint()}, found.names)
        write_seconds = time.perf_counter() - before
    extractor.unload()
    before = time.perf_counter()
    ActivationStore(scratch)
    verify_seconds = time.perf_counter() - before
    warm = slice(1, None) if len(sizes) > 1 else slice(None)  # the first is slower
    tokens, read_seconds = sum(sizes[warm]), sum(took[warm])
    row_bytes = PROVENANCE_BYTES + sum(point.row_bytes for point in points.values())
    total_rows = found.scaled(found.all_rows, text)
    shard_rows = max(1, SHARD_BYTES // max(point.row_bytes for point in points.values()))
    whole = total_rows * row_bytes + _around(found, text, -(-total_rows // shard_rows) * (len(points) + 1))
    rows_there, there = _there(folder)
    return Extraction(
        store=in_words(folder),
        tokens=round(found.scaled(found.tokens, text) * (1 - min(1.0, rows_there / max(1, total_rows)))),
        read_tokens=tokens,
        read_seconds=read_seconds + tokens * found.seconds / found.tokens,
        bytes=whole,
        there=there,
        write_rate=stored * row_bytes / write_seconds,
        verify_rate=stored * row_bytes / verify_seconds,
        load_seconds=load_seconds,
        exact=found.whole,
        buffers=_buffers(points, min(shard_rows, total_rows) - stored),
        peak_bytes=0,
    )


def _buffers(points: dict[str, HookPoint], rows: int) -> int:
    """Bytes of so many rows more on their way to a shard."""
    return max(0, rows) * (PROVENANCE_BYTES + sum(point.row_bytes for point in points.values()))


def _around(found: Survey, text: TextContexts, files: int) -> int:
    """Bytes of names, headers and manifest."""
    return found.scaled(len(json.dumps(found.names)), text) + files * FILE_BYTES


def _there(folder: Place) -> tuple[int, int]:
    """Rows and bytes that an interrupted extraction has left and that it goes on from."""
    if is_store(folder) or not (is_url(folder) or Path(folder).is_dir()):
        return 0, 0
    place = writing_place(folder)
    names = filter(is_journal, place.names())
    journals = [parse_journal(place.read(name) or b"", f"{place.name}/{name}") for name in names]
    rows = sum(shard.rows for journal in journals for shard in journal.shards)
    return rows, sum(file.bytes for journal in journals for file in journal.files)
