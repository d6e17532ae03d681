"""What is known of training straight from a model before any of it: how many rows there will be, and of what size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from backbones import RowExtractor
from backbones.row_extractor import ROW_DTYPES
from datamodules.rehearsal import PROVENANCE_BYTES, Wanted, survey
from datamodules.shards import Split
from datamodules.shards.format import HookPoint
from datamodules.text_contexts import TextContexts

WINDOWS = 8
"""That are tokenised to learn how many rows one gives, where no store needs all of them counted."""
NUMBER_BYTES = 8
"""Of a row's number."""


class Stream(NamedTuple):
    """The settings of `StreamedActivationDataModule` that decide it."""

    extractor: RowExtractor
    text: TextContexts
    hook_points: Sequence[str] | None
    split_of: Callable[[str], Split]
    pool_windows: int
    batch_size: int
    ahead: bool
    fill: Path | None


def known_of(stream: Stream, wanted: Wanted) -> tuple[dict[str, Any], int]:
    """What there is to say of sizes, by name, and the windows of a pool that are enough for a calibration.

    Raises:
        UserError: a store fills, and how long its text is, is not known.
    """
    windows = None if stream.fill is not None else WINDOWS
    found = survey(stream.extractor, stream.text, stream.split_of, 0, 0, wanted.seconds, windows)
    dtype, shapes = stream.extractor.store_dtype, stream.extractor.shapes()
    row_bytes = sum(shapes[name] for name in stream.hook_points or shapes) * ROW_DTYPES[dtype].itemsize + NUMBER_BYTES
    a_window = found.rows["train"] / found.windows
    # half of the first pool comes before the second is needed
    enough = -(-2 * (wanted.batches + 1) * stream.batch_size // max(1, int(a_window)))
    pools = min(int(stream.pool_windows), enough)
    pass_rows = None
    if found.whole or stream.text.total_tokens is not None:
        pass_rows = found.scaled(found.rows["train"], stream.text)
    largest = a_window * stream.pool_windows if pass_rows is None else min(a_window * stream.pool_windows, pass_rows)
    known: dict[str, Any] = {
        "pool_rows": a_window * stream.pool_windows,
        "pass_rows": pass_rows,
        "train_share": found.rows["train"] / max(1, found.all_rows),
        "ahead": stream.ahead,
        "pool_bytes": round(largest * row_bytes),
        "calibrated_pool_bytes": round(min(largest, a_window * pools) * row_bytes),
    }
    if stream.fill is not None:
        stored = PROVENANCE_BYTES + sum(HookPoint(d, dtype).row_bytes for d in shapes.values())
        known |= {
            "fills": True,
            "fill": str(stream.fill),
            "fill_bytes": found.scaled(found.all_rows, stream.text) * stored,
            "fill_there": sum(path.stat().st_size for path in stream.fill.glob("*") if path.is_file()),
        }
    return known, pools
