"""How much of what fine-tuning gained in retrieval hangs on which latents, by ablation.

Shapes: q queries, m documents, n texts, d width, P parts.

An embedding of the fine-tuned model is that of the base plus what changed of each part, exactly:

    x_tuned = x_base + Σ_G (g_tuned W_tuned − g_base W_base)_G + (b_tuned − b_base) + (e_tuned − e_base)

with the latents in groups G, the pooled biases b and the errors e, which no latent explains. To ablate a part is to
take its change back. Ranks are not linear, so shares need not sum to 1.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from datamodules.triplets import Example
from explanations.text_latents import TextLatents, decoded
from lightning_modules.functional import (
    BootstrapInterval,
    Cosine,
    Fired,
    Relevance,
    ndcg,
    paired_bootstrap,
    paired_ratio,
    relevant_ranks,
)

NDCG_AT = 10


class RetrievalTexts(NamedTuple):
    """Queries, and the documents among which they are looked for."""

    queries: list[str]
    """q different ones."""
    documents: list[str]
    """m different ones."""
    relevance: Relevance
    excluded: Tensor
    """int64 [e, 2] places of queries and documents that are the same text."""

    @classmethod
    def of(cls, examples: Iterable[Example]) -> RetrievalTexts:
        """Anchors look for their positives among all positives and negatives."""
        queries, documents = dict[str, int](), dict[str, int]()
        pairs = dict[tuple[int, int], None]()
        for example in examples:
            query = queries.setdefault(example.anchor, len(queries))
            for text in (example.positive, *example.negatives):
                documents.setdefault(text, len(documents))
            pairs[query, documents[example.positive]] = None
        found = torch.tensor(list(pairs), dtype=torch.int64).reshape(-1, 2)
        same = [[place, documents[text]] for text, place in queries.items() if text in documents]
        excluded = torch.tensor(same, dtype=torch.int64).reshape(-1, 2)
        relevance = Relevance(found[:, 0], found[:, 1], torch.ones(len(found)))
        return cls(list(queries), list(documents), relevance, excluded)

    def scores(self, queries: Tensor, documents: Tensor) -> Tensor:
        """[q] float64 NDCG@10 of each query by the embeddings [q, d] and [m, d]; nan where it has no document."""
        found = relevant_ranks(Cosine().scores(queries, documents), self.relevance, self.excluded)
        return ndcg(found, NDCG_AT)


class Part(NamedTuple):
    """One part of what changed, and what of the gain hangs on it."""

    name: str
    lost: BootstrapInterval
    """NDCG@10 that is lost when its change is taken back."""
    share: BootstrapInterval
    """That over the whole gain; of no meaning where the gain may be 0."""
    alone: float
    """The share of the gain that the base has with the change of this part alone."""


class Gain(NamedTuple):
    """What fine-tuning gained in NDCG@10."""

    queries: int
    documents: int
    base: float
    tuned: float
    gain: BootstrapInterval
    parts: list[Part]

    @property
    def is_sure(self) -> bool:
        """Whether the gain is above what drawing other queries could make of 0."""
        return self.gain.low > 0


def changes(base: TextLatents, tuned: TextLatents, groups: Tensor, count: int) -> Tensor:
    """[count + 2, n, d] what changed of each group of latents, of the bias and of the error; they sum to the difference
    of the embeddings.

    Args:
        base, tuned: the same n texts read by both models.
        groups: int64 [s] the group of each latent.
        count: of groups.
    """
    n = len(base.lengths)
    of_latents = [
        decoded(_of(tuned.codes, groups == group), n, tuned.W) - decoded(_of(base.codes, groups == group), n, base.W)
        for group in range(count)
    ]
    return torch.stack([*of_latents, tuned.bias - base.bias, tuned.error - base.error])


def moves(base: TextLatents, tuned: TextLatents) -> Tensor:
    """[s] how far each latent moves the embeddings of the same n texts from one model to the other: the sum of
    ‖g_tuned W_tuned − g_base W_base‖ over them.
    """
    s = len(tuned.W)
    keys = [each.codes.rows * s + each.codes.latents for each in (base, tuned)]
    every = torch.unique(torch.cat(keys))  # the same of both, unless they pool in different ways
    latents = every % s
    theirs, ours = (
        torch.zeros(len(every), dtype=torch.float64).index_put((torch.searchsorted(every, own),), each.codes.values)
        for own, each in zip(keys, (base, tuned), strict=True)
    )
    inner = (tuned.W * base.W).sum(dim=1)[latents]
    of_base, of_tuned = (each.W.square().sum(dim=1)[latents] for each in (base, tuned))
    squares = ours.square() * of_tuned + theirs.square() * of_base - 2 * ours * theirs * inner
    return torch.zeros(s, dtype=torch.float64).index_add_(0, latents, squares.clamp_min(0).sqrt())


class BothRead(NamedTuple):
    """Texts as both models embed them."""

    base: TextLatents
    tuned: TextLatents


def gain_of(
    task: RetrievalTexts, queries: BothRead, documents: BothRead, groups: Tensor, names: Sequence[str], seed: int
) -> Gain:
    """What of the gain hangs on which part.

    Args:
        task: what is looked for.
        queries, documents: the task's texts as both models read them.
        groups: int64 [s] the group of each latent.
        names: of the groups; the parts are these, `bias` and `error`.
        seed: of the bootstrap.
    """
    ours, theirs = (changes(*read, groups, len(names)) for read in (queries, documents))
    before = queries.base.pooled, documents.base.pooled
    after = queries.tuned.pooled, documents.tuned.pooled
    base, tuned = task.scores(*before), task.scores(*after)
    parts = []
    for name, own, other in zip([*names, "bias", "error"], ours, theirs, strict=True):
        lost = tuned - task.scores(after[0] - own, after[1] - other)
        alone = task.scores(before[0] + own, before[1] + other) - base
        share = paired_ratio(lost, tuned - base, seed)
        parts.append(Part(name, paired_bootstrap(lost, seed), share, float(alone.nansum() / (tuned - base).nansum())))
    counted = int((~tuned.isnan()).sum())
    gain = paired_bootstrap(tuned - base, seed)
    return Gain(counted, len(task.documents), float(base.nanmean()), float(tuned.nanmean()), gain, parts)


def _of(codes: Fired, latents: Tensor) -> Fired:
    """The codes of some latents, bool [s]."""
    kept = latents[codes.latents]
    return Fired(*(column[kept] for column in codes))
