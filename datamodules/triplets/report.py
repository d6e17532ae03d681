"""What is known of the data before training."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from datamodules.triplets.batch import TripletBatch
from datamodules.triplets.building import TripletCounts
from datamodules.triplets.table import TripletTable

PERCENTILES = (50, 90, 99)


class ColumnFigures(NamedTuple):
    """Of one column, over the examples."""

    texts: int
    """Different ones."""
    truncated: float
    """The share of its entries that were cut."""
    mean_tokens: float
    """Of an entry, as the first encoder reads it."""
    percentiles: tuple[int, ...]
    """Tokens at PERCENTILES."""
    longest: int


@dataclass
class TripletReport:
    """Figures of a training split; the last two are filled in by whoever holds the model."""

    counts: TripletCounts
    """Of the whole source, before anything was held out."""
    examples: int
    """That are trained on."""
    mined: int
    """Negatives that mining gave them."""
    columns: dict[str, ColumnFigures] = field(default_factory=dict)
    texts_a_batch: float = 0.0
    """Different ones, which is how many are encoded."""
    entries_a_batch: float = 0.0
    """Anchors, positives and negatives, repeated ones among them."""
    usual_waste: float = 0.0
    """The share of padding where every column of a batch is padded to its longest text."""
    waste: float = 0.0
    """The share of padding where different texts are sorted by length and cut into chunks."""
    satisfied: float | None = None
    """The share of triplets whose positive is already nearer than each negative."""
    triplets_per_second: float | None = None
    """As predicted from a few steps."""

    def as_text(self) -> str:
        """The report in lines."""
        counts = self.counts
        lines = [
            f"{self.examples:,} examples to train on; {counts.texts:,} different texts in all {counts.examples:,}",
            f"left out: {counts.duplicates:,} duplicates, {counts.bad_rows:,} bad rows, {counts.same_tokens:,} whose "
            f"anchor and positive are the same tokens; {counts.dropped_negatives:,} negatives that are a positive",
        ]
        if self.mined:
            lines.append(f"mined negatives: {self.mined:,}")
        for name, column in self.columns.items():
            tokens = ", ".join(f"{p}% ≤ {n}" for p, n in zip(PERCENTILES, column.percentiles, strict=True))
            lines.append(
                f"{name}: {column.texts:,} different; {column.mean_tokens:.1f} tokens ({tokens}, longest "
                f"{column.longest}); {column.truncated:.1%} truncated"
            )
        lines.append(
            f"padding: {self.waste:.1%} of what is computed, {self.usual_waste:.1%} if every column were padded to its "
            f"longest; {self.texts_a_batch:.0f} texts are encoded for {self.entries_a_batch:.0f} entries of a batch"
        )
        if self.satisfied is not None:
            lines.append(f"already satisfied: {self.satisfied:.1%} of the triplets")
        if self.triplets_per_second is not None:
            lines.append(f"predicted speed: {self.triplets_per_second:,.1f} triplets/s")
        return "\n".join(lines)


PaddedTokens = Callable[[Sequence[Tensor]], int]


def report_of(
    table: TripletTable,
    rows: Tensor,
    mined: Tensor | None,
    batches: Iterable[TripletBatch],
    padded_tokens: PaddedTokens,
) -> TripletReport:
    """The figures of a split.

    Args:
        table: the data.
        rows: int64 [examples] numbers of those that are trained on.
        mined: int64 [examples of the table, n] ids of mined negatives.
        batches: a sample of the batches that will be trained on.
        padded_tokens: how many tokens, padding among them, an encoder computes for texts of these lengths (int64 [u] in
            each tokenisation).
    """
    report = TripletReport(table.counts, len(rows), 0 if mined is None else int((mined[rows] >= 0).sum()))
    negatives = table.negatives(rows, table.most_negatives).flatten()
    entries = {
        "anchor": torch.from_numpy(table.anchors[rows.numpy()]),
        "positive": torch.from_numpy(table.positives[rows.numpy()]),
        "negative": negatives[negatives >= 0],
    }
    report.columns = {name: _figures(table, ids) for name, ids in entries.items() if len(ids)}
    _measure_padding(report, list(batches), padded_tokens)
    return report


def _figures(table: TripletTable, ids: Tensor) -> ColumnFigures:
    lengths = table.lengths(0)[ids].sort().values
    places = [min(len(lengths) - 1, len(lengths) * percentile // 100) for percentile in PERCENTILES]
    truncated = torch.stack([table.truncated(part)[ids] for part in range(table.tokenisations)]).any(dim=0)
    return ColumnFigures(
        len(torch.unique(ids)),
        float(truncated.double().mean()),
        float(lengths.double().mean()),
        tuple(lengths[places].tolist()),
        int(lengths[-1]),
    )


def _measure_padding(report: TripletReport, batches: Sequence[TripletBatch], padded_tokens: PaddedTokens) -> None:
    usual, usual_padded, tokens, padded, texts, entries = 0, 0, 0, 0, 0, 0
    for batch in batches:
        for column in (batch.anchors, batch.positives, *batch.negatives.unbind(dim=1)):
            column = column[column >= 0]
            entries += len(column)
            for part in batch.texts:
                lengths = part.lengths[column]
                usual += int(lengths.sum())
                usual_padded += int(lengths.max()) * len(lengths) if len(lengths) else 0
        tokens += sum(int(part.lengths.sum()) for part in batch.texts)
        padded += padded_tokens([part.lengths for part in batch.texts])
        texts += len(batch.ids)
    report.texts_a_batch, report.entries_a_batch = texts / max(1, len(batches)), entries / max(1, len(batches))
    report.usual_waste = 1 - usual / max(1, usual_padded)
    report.waste = 1 - tokens / max(1, padded)
