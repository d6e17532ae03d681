"""What a batch's examples may be contrasted with, and what they never are.

Shapes: b examples of this rank, B of all ranks that were gathered, q different anchors and m different documents
(positives and negatives) among them, n negatives of the example that has most.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lightning_modules.functional import first_occurrences, gather_equal, gather_rows, occurring_with, ranks
from lightning_modules.losses.base import EmbeddedBatch


class Pool(NamedTuple):
    """Examples, with each different text once in the role of an anchor and once in that of a document.

    Texts are the same if their ids are. The same text from two ranks counts once, too, as the first rank has it.
    """

    batch: EmbeddedBatch
    """Of all ranks, without scores."""
    rows: Tensor
    """[b] int64: this rank's among the B examples."""
    queries: Tensor
    """[q] places of the different anchors among the texts."""
    documents: Tensor
    """[m] places of the different documents."""
    query_of: Tensor
    """[B] int64 < q: each example's anchor."""
    document_of: Tensor
    """[B] int64 < m: each example's positive."""
    negatives: Tensor
    """[B, n] int64 ≤ m: each example's negatives; m where there is none."""
    weight: float
    """What the sum of this rank's rows is multiplied by: 1 / b, or ranks / B, so that the ranks' gradients have the
    gradient of the mean over all B rows as their mean, though ranks may have different numbers of rows."""

    @classmethod
    def of(cls, batch: EmbeddedBatch, across_ranks: bool) -> Pool:
        """Of this rank, or of all; then every rank has to ask."""
        count, others = len(batch.anchors), 0
        rank_count = ranks() if across_ranks else 1
        if rank_count > 1:
            batch, others = _of_all_ranks(batch)
        some = batch.negatives.flatten() >= 0
        documents = torch.cat([batch.positives, batch.negatives.flatten()[some]])
        first_query, query_of = first_occurrences(batch.ids[batch.anchors])
        first_document, document_of = first_occurrences(batch.ids[documents])
        examples = len(batch.anchors)
        negatives = batch.negatives.new_full((len(some),), len(first_document))
        negatives[some] = document_of[examples:]
        return cls(
            batch,
            torch.arange(others, others + count, device=batch.anchors.device),
            batch.anchors[first_query],
            documents[first_document],
            query_of,
            document_of[:examples],
            negatives.view(batch.negatives.shape),
            rank_count / max(examples, 1),
        )

    @property
    def anchors(self) -> Tensor:
        """[b] places of this rank's anchors among the texts."""
        return self.queries[self.query_of[self.rows]]

    @property
    def positives(self) -> Tensor:
        """[b] places of this rank's positives."""
        return self.documents[self.document_of[self.rows]]

    def own(self) -> Tensor:
        """[b, m] bool: the documents that are given as the row's negatives."""
        given = self.negatives[self.rows]
        table = torch.zeros(len(given), len(self.documents) + 1, dtype=torch.bool, device=given.device)
        return table.scatter_(1, given, True)[:, :-1]

    def never_documents(self) -> Tensor:
        """[b, m] bool: documents that are no negatives of the row: every positive of its anchor, in whatever example,
        and the anchor itself.
        """
        known = occurring_with(self.query_of, self.document_of, self.rows, len(self.documents))
        return known | (self.batch.ids[self.anchors].unsqueeze(1) == self.batch.ids[self.documents])

    def never_queries(self) -> Tensor:
        """[b, q] bool: anchors that are no negatives of the row: every anchor of its positive, and the positive."""
        known = occurring_with(self.document_of, self.query_of, self.rows, len(self.queries))
        return known | (self.batch.ids[self.positives].unsqueeze(1) == self.batch.ids[self.queries])


def _of_all_ranks(batch: EmbeddedBatch) -> tuple[EmbeddedBatch, int]:
    """The batches of all ranks as one, and how many examples there are before this rank's."""
    most = batch.negatives.shape[1]
    own = torch.tensor([len(batch.ids), len(batch.anchors), most], device=batch.ids.device)
    texts, examples, negatives = gather_equal(own).T.tolist()
    firsts = [sum(texts[:rank]) for rank in range(len(texts))]
    rank = torch.distributed.get_rank()
    padded = batch.negatives.new_full((len(batch.anchors), max(negatives)), -1)
    padded[:, :most] = batch.negatives
    places = torch.cat([batch.anchors.unsqueeze(1), batch.positives.unsqueeze(1), padded], dim=1)
    places = gather_rows(torch.where(places < 0, places, places + firsts[rank]), examples)
    whole = EmbeddedBatch(
        gather_rows(batch.texts, texts),
        gather_rows(batch.ids, texts),
        places[:, 0],
        places[:, 1],
        places[:, 2:],
        None,
        None if batch.guide is None else gather_rows(batch.guide, texts),
    )
    return whole, sum(examples[:rank])
