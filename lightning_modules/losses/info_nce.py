"""InfoNCE over the texts of a batch (van den Oord et al. 2018, arXiv 1807.03748; as multiple negatives ranking
Henderson et al. 2017, arXiv 1705.00652), with the wider softmax of GTE (Li et al. 2023, arXiv 2308.03281) and false
negatives masked by a guide (GIST, Solatorio 2024, arXiv 2402.16829).

Shapes: b examples of this rank, q different anchors and m different documents of all ranks, d width, c columns.
"""

from __future__ import annotations

from typing import Literal

import torch
from jsonargparse.typing import PositiveFloat
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from lightning_modules.functional import unit
from lightning_modules.losses.base import ContrastiveLoss, EmbeddedBatch
from lightning_modules.losses.pool import Pool
from run_store import UserError

SCORES_AT_ONCE = 2**22
"""Of anchors with documents that are in memory at once: with cached gradients a batch of many thousands is bounded by
its table of scores, which grows with the square of it."""

Side = Literal["query", "document"]
Direction = Literal["query_to_document", "symmetric", "gte"]

Kind = tuple[Side, Side]

SOFTMAXES: dict[Direction, tuple[tuple[Kind, ...], ...]] = {
    "query_to_document": ((("query", "document"),),),
    "symmetric": ((("query", "document"),), (("document", "query"),)),
    "gte": ((("query", "document"), ("query", "query"), ("document", "query"), ("document", "document")),),
}
"""The softmaxes whose mean is taken, each with its kinds of negatives: which text of the row against which others."""


class InfoNCE(ContrastiveLoss):
    """The mean over examples i of −log softmax of the pair among its negatives:

        log(exp(s_i) + Σ_j exp(cos(x_i, n_j) / τ)) − s_i,  s_i = cos(a_i, p_i) / τ

    A negative is a different text (one that occurs twice counts once) and never a positive of the same anchor, in
    whatever example, nor the anchor itself; where anchors are negatives, never one with the same positive, nor the
    positive itself. An example without negatives has no loss and no gradient.

    With several processes and gather_negatives, the gradient after DDP's averaging is that of the mean over the
    examples of all processes, as though one had them all: each process weighs the sum over its rows by processes / all
    examples, which is 1 / its own where all have as many.

    Args:
        temperature: τ; .02 suits bases that are strong already.
        direction: `query_to_document`: anchors choose among documents. `symmetric`: the mean of that and of positives
            that choose among anchors. `gte`: one softmax over documents and anchors, against both anchor and positive;
            the pair itself is in it once.
        in_batch: whether negatives are all documents of the batch, or only those that an example was given.
        gather_negatives: whether the documents of all processes are negatives.
        guide_margin: drops a negative if the guide finds it nearer than the pair less this margin: cos_guide(x_i, n_j)
            > cos_guide(a_i, p_i) − margin. None needs no guide.
    """

    def __init__(
        self,
        temperature: PositiveFloat = 0.05,
        direction: Direction = "query_to_document",
        in_batch: bool = True,
        gather_negatives: bool = True,
        guide_margin: float | None = None,
    ) -> None:
        super().__init__()
        self.temperature = float(temperature)
        self.direction: Direction = direction
        self.in_batch = in_batch
        self.gather_negatives = gather_negatives
        self.guide_margin = guide_margin

    @property
    def needs_guide(self) -> bool:
        return self.guide_margin is not None

    def check_settings(self) -> None:
        super().check_settings()
        if not self.in_batch and self.direction != "query_to_document":
            raise UserError(
                f"InfoNCE: in_batch is false and direction is {self.direction}, which takes other examples' anchors as "
                "negatives: set in_batch to true or direction to query_to_document"
            )

    def of(self, batch: EmbeddedBatch) -> Tensor:
        pool = Pool.of(batch, self.gather_negatives)
        texts = unit(pool.batch.texts)
        columns = len(pool.documents) + len(pool.queries)
        blocks = torch.split(pool.rows, max(1, SCORES_AT_ONCE // max(1, columns)))
        if len(blocks) == 1:
            total = self._sum(texts, pool)
        else:
            # made again in backward: of all scores there is a block at a time
            total = sum(
                checkpoint(self._sum, texts, pool._replace(rows=rows), use_reentrant=False, preserve_rng_state=False)
                for rows in blocks
            )
        return total * (pool.weight / len(SOFTMAXES[self.direction]))

    def _sum(self, texts: Tensor, pool: Pool) -> Tensor:
        """Over the pool's rows and all softmaxes, scalar; texts have norm 1."""
        never = self._never(pool)
        rows, columns = _sides(texts, pool)
        pairs = (rows["query"] * rows["document"]).sum(dim=1, keepdim=True)
        total = pairs.new_zeros(())
        for softmax in SOFTMAXES[self.direction]:
            others = [
                (rows[row] @ columns[column].T).masked_fill(never[row, column], -torch.inf) for row, column in softmax
            ]
            # the pair's own column is never empty, so that even a row without negatives has a finite softmax
            logits = torch.cat([pairs, *others], dim=1) / self.temperature
            total = total + (logits.logsumexp(dim=1) - logits[:, 0]).sum()
        return total

    def _never(self, pool: Pool) -> dict[Kind, Tensor]:
        """[b, m] or [b, q] bool for each kind of negatives: what is not one."""
        kinds = {kind for softmax in SOFTMAXES[self.direction] for kind in softmax}
        known: dict[Side, Tensor] = {"document": pool.never_documents()}
        if not self.in_batch:
            known["document"] |= ~pool.own()
        if any(column == "query" for _, column in kinds):
            known["query"] = pool.never_queries()
        never = {(row, column): known[column] for row, column in kinds}
        if self.guide_margin is None or pool.batch.guide is None:
            return never
        rows, columns = _sides(pool.batch.guide, pool)
        limit = (rows["query"] * rows["document"]).sum(dim=1, keepdim=True) - self.guide_margin
        return {(row, column): mask | (rows[row] @ columns[column].T > limit) for (row, column), mask in never.items()}


def _sides(texts: Tensor, pool: Pool) -> tuple[dict[Side, Tensor], dict[Side, Tensor]]:
    """The texts of the rows, and those that they are held against."""
    rows: dict[Side, Tensor] = {"query": texts[pool.anchors], "document": texts[pool.positives]}
    return rows, {"query": texts[pool.queries], "document": texts[pool.documents]}
