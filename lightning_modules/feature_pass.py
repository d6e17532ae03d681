"""One pass over stored rows that gathers all there is to say of an autoencoder's latents.

Shapes: b rows of a batch, d width of a hook point.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from datamodules.shards import ActivationStore
from datamodules.shards.row_ranges import RowRanges
from features import BatchRows, FeatureCollector, Features, Keeping
from lightning_modules.metrics import ReconstructionScores
from lightning_modules.trainee import Trainee

BATCH_ROWS = 4096


class FeaturePass(NamedTuple):
    """What was gathered, and how well the rows were reconstructed."""

    features: Features
    scores: dict[str, float]
    """Those of `ReconstructionScores`, means over the hook points that are reconstructed."""


class StoreRows(NamedTuple):
    """A batch as the pass reads it."""

    activations: tuple[Tensor, ...]
    """[b, d] of each hook point."""
    rows: BatchRows
    """Where they come from."""
    counted: slice
    """Those that are not neighbours alone."""


@torch.inference_mode()
def feature_pass(
    member: Trainee,
    store: ActivationStore,
    hook_points: Sequence[str],
    ranges: Tensor,
    keeping: Keeping | None = None,
    batch_rows: int = BATCH_ROWS,
    on_progress: Callable[[int, int], None] = lambda done, rows: None,
) -> FeaturePass:
    """Reads rows once, in store order.

    Args:
        member: the autoencoder, in evaluation.
        store: where the rows are.
        hook_points: names of the activations of a batch, in the order that the member's model has them.
        ranges: int64 [n, 2] first row of each range of rows and the row after its last, ascending and apart.
        keeping: how much is kept of each latent.
        batch_rows: rows of a batch.
        on_progress: told the rows that are done and those that there are, after each batch.
    """
    device = member.tokens_seen.device
    collector = FeatureCollector(member.autoencoder.d_sae, keeping, device=device)
    # one rank may read for all of them: the others would never come to where ranks add up
    metrics = [ReconstructionScores(width, over_ranks=False).to(device) for width in member.pair.outputs]
    order = RowRanges(ranges)
    for batch in batches(store, hook_points, order, collector.keeping.neighbours, batch_rows):
        activations = [part.to(device) for part in batch.activations]
        seen = member.seen(activations)
        pair = member.pair(seen)
        codes, reconstructions = member.reconstructed(pair)
        ablated = pair.undo(member.autoencoder.without_latents(pair.x))
        targets = [seen[place] for place in member.pair.sides.reconstructed]
        for metric, *parts in zip(metrics, targets, reconstructions, ablated, strict=True):
            metric.update(*(part[batch.counted] for part in parts))
        collector.update(codes, BatchRows(*(column.to(device) for column in batch.rows)))
        on_progress(collector.rows, order.size)
    each = [metric.compute() for metric in metrics]
    scores = {name: float(torch.stack([of_one[name] for of_one in each]).mean()) for name in each[0]}
    return FeaturePass(collector.features(), scores)


def batches(
    store: ActivationStore, hook_points: Sequence[str], order: RowRanges, neighbours: int, batch_rows: int = BATCH_ROWS
) -> Iterator[StoreRows]:
    """Every row once, each batch with `neighbours` more rows on either side that are there as neighbours alone."""
    for start in range(0, order.size, batch_rows):
        stop = min(start + batch_rows, order.size)
        first, last = max(0, start - neighbours), min(stop + neighbours, order.size)
        rows = order.rows(first, last)
        source = store.provenance(rows)
        counted = slice(start - first, stop - first)
        mask = torch.zeros(last - first, dtype=torch.bool)
        mask[counted] = True
        where = BatchRows(rows, source.documents.long(), source.tokens.long(), mask)
        yield StoreRows(store.read(rows, hook_points), where, counted)
