"""Hard negatives of a table's examples, from embeddings of its texts."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from datamodules.triplets.batch import TokenisedTexts
from datamodules.triplets.mining import HardNegatives
from datamodules.triplets.table import RetrievalTask, TripletTable
from lightning_modules.functional import LatentSets

Embed = Callable[[tuple[TokenisedTexts, ...]], Tensor]
LatentsOf = Callable[[tuple[TokenisedTexts, ...]], LatentSets]
"""From all documents, in every tokenisation, to their latents, on the CPU."""
TEXTS_A_CALL = 1024


def mined_negatives(
    table: TripletTable,
    rows: Tensor,
    embed: Embed,
    settings: HardNegatives,
    seed: int,
    latents_of: LatentsOf | None = None,
) -> Tensor:
    """Negatives of some examples, from among the documents of these.

    What belongs to an anchor anywhere in the table is no negative of it, nor is a document that is the anchor's text.

    Args:
        table: The data.
        rows: int64 [e] numbers of the examples.
        embed: Gives the embeddings [u, d] of u texts.
        settings: Which documents become negatives.
        seed: For random ones.
        latents_of: Gives the latents of the documents, where the settings compare them.

    Returns:
        int64 [examples of the table, n] ids, -1 where there are none.

    Raises:
        UserError: an embedding is not finite.
    """
    task = table.retrieval(rows)
    anchors, documents = (_embedded(table, embed, ids) for ids in (task.queries, task.documents))
    ids = torch.stack([torch.from_numpy(column[rows.numpy()]) for column in (table.anchors, table.positives)], dim=1)
    latents = latents_of(table.texts(task.documents)) if latents_of and settings.compares_latents else None
    found = settings.mine(anchors, documents, _places(task, ids), _forbidden(table, task), seed, latents)
    mined = torch.full((len(table), settings.count), -1)
    mined[rows] = torch.where(found < 0, -1, task.documents[found])
    return mined


def _embedded(table: TripletTable, embed: Embed, ids: Tensor) -> Tensor:
    # by length, so that little is padded
    order = table.lengths(0)[ids].argsort(descending=True, stable=True)
    parts = [embed(table.texts(ids[places])).detach().float() for places in torch.split(order, TEXTS_A_CALL)]
    return torch.cat(parts)[order.argsort()]


def _forbidden(table: TripletTable, task: RetrievalTask) -> Tensor:
    """int64 [f, 2] places of an anchor and of a document that is no negative of it."""
    everything = table.retrieval(torch.arange(len(table)))
    queries, documents = everything.relevant.unbind(dim=1)
    belong = torch.stack([everything.queries[queries], everything.documents[documents]], dim=1)
    ids = torch.cat([belong, task.queries.unsqueeze(1).expand(-1, 2)])
    is_there = torch.isin(ids[:, 0], task.queries) & torch.isin(ids[:, 1], task.documents)
    return _places(task, ids[is_there])


def _places(task: RetrievalTask, ids: Tensor) -> Tensor:
    """int64 [f, 2] places of an anchor's id and a document's id [f, 2]."""
    anchors, documents = (ids[:, side].contiguous() for side in (0, 1))
    return torch.stack([torch.searchsorted(task.queries, anchors), torch.searchsorted(task.documents, documents)], 1)
