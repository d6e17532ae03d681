"""Hard negatives: documents that a model ranks high for an anchor and that do not belong to it.

Shapes: q anchors, m documents, d width, e examples, w candidates of one, n negatives of one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jsonargparse.typing import ClosedUnitInterval, NonNegativeFloat, NonNegativeInt, PositiveInt
from torch import Tensor
from torch.nn.functional import normalize

from lightning_modules.functional import LatentSets
from run_store import UserError

EXAMPLES_A_BLOCK = 512


@dataclass(frozen=True)
class HardNegatives:
    """Which documents become negatives.

    Args:
        count: Negatives for each example.
        first_rank: The best-ranked document that may be one; 0 is the best after those known to be positive. The very
            first are often positives that nobody marked.
        last_rank: Documents from this rank on are not looked at.
        max_share: A negative's cosine is at most this share of the positive's.
        margin: A negative's cosine is at least this much below the positive's; null asks for `max_share` alone.
        sampling: `hardest` takes the best-ranked ones that are allowed, `random` any of them, drawn by the seed,
            `least_overlap` those whose latents overlap least with the positive's.
        most_overlap: A document whose latents overlap with the positive's by more than this is left out as a positive
            that nobody marked; null lets all pass. Latents need the callback LatentGuide.
        refresh_every_n_epochs: Mine again with the model as it has become; null mines once, with the base model.
    """

    count: PositiveInt = 1
    first_rank: NonNegativeInt = 0
    last_rank: PositiveInt = 100
    max_share: ClosedUnitInterval = 0.95
    margin: NonNegativeFloat | None = None
    sampling: Literal["hardest", "random", "least_overlap"] = "hardest"
    most_overlap: ClosedUnitInterval | None = None
    refresh_every_n_epochs: PositiveInt | None = None

    def check_settings(self) -> None:
        """Refuses settings that make no sense together.

        Raises:
            UserError: there are fewer ranks than negatives.
        """
        if self.last_rank - self.first_rank < self.count:
            raise UserError(
                f"mining.first_rank {self.first_rank} and last_rank {self.last_rank} leave fewer documents than "
                f"mining.count {self.count}: raise last_rank"
            )

    @property
    def compares_latents(self) -> bool:
        """Whether `mine` must know the documents' latents."""
        return self.most_overlap is not None or self.sampling == "least_overlap"

    def is_due(self, epoch: int, mined_in: int | None) -> bool:
        """Whether to mine at the start of an epoch, when that was last done at the start of `mined_in`."""
        if mined_in is None or self.refresh_every_n_epochs is None:
            return mined_in is None
        return bool(epoch - mined_in >= self.refresh_every_n_epochs)

    def mine(
        self,
        anchors: Tensor,
        documents: Tensor,
        examples: Tensor,
        forbidden: Tensor,
        seed: int = 0,
        latents: LatentSets | None = None,
    ) -> Tensor:
        """Negatives for each example.

        Documents are ranked by cosine; an example's negatives are compared with its own positive.

        Args:
            anchors: [q, d] embeddings, of any norm.
            documents: [m, d] embeddings.
            examples: int64 [e, 2] places: of the anchor, and of the positive among the documents.
            forbidden: int64 [f, 2] places: of an anchor, and of a document that is no negative of it. Positives in
                `examples` are forbidden in any case.
            seed: for `random`.
            latents: of the documents, on the CPU, where latents are compared.

        Returns:
            int64 [e, n] places of documents, in the order of their ranks, -1 where too few are allowed.

        Raises:
            UserError: an embedding is not finite.
        """
        for texts in (anchors, documents):
            if not bool(texts.isfinite().all()):
                raise UserError("mining: the model gives embeddings that are not finite: mine with another model")
        anchors, documents = (normalize(texts.float(), dim=1) for texts in (anchors, documents))
        forbidden = _sorted_by_anchor(torch.cat([forbidden.cpu(), examples.cpu()]))
        found = [
            self._of_block(anchors, documents, block, forbidden, seed, EXAMPLES_A_BLOCK * number, latents)
            for number, block in enumerate(torch.split(examples.cpu(), EXAMPLES_A_BLOCK))
        ]
        return torch.cat(found) if found else torch.empty(0, self.count, dtype=torch.int64)

    def _of_block(
        self,
        anchors: Tensor,
        documents: Tensor,
        examples: Tensor,
        forbidden: Tensor,
        seed: int,
        first: int,
        latents: LatentSets | None,
    ) -> Tensor:
        device = documents.device
        queries, owners = torch.unique(examples[:, 0], return_inverse=True)
        cosines = (anchors[queries.to(device)] @ documents.T).cpu()
        limits = self._limit(cosines[owners, examples[:, 1]])
        rows, columns = _entries(queries, forbidden)
        cosines[rows, columns] = -torch.inf
        window = min(self.last_rank, len(documents))
        values, places = cosines.topk(window, dim=1)
        # topk leaves open which of equals comes first
        order = places.argsort(dim=1, stable=True)
        order = order.gather(1, values.gather(1, order).argsort(dim=1, descending=True, stable=True))
        values, places = values.gather(1, order)[owners], places.gather(1, order)[owners]
        allowed = (values <= limits.unsqueeze(1)) & values.isfinite()
        allowed[:, : self.first_rank] = False
        overlaps = None if latents is None else latents.overlaps(examples[:, 1], places)
        if self.most_overlap is not None:
            assert overlaps is not None
            allowed &= overlaps <= self.most_overlap
        if self.sampling == "least_overlap":
            assert overlaps is not None
            # the rank decides between equals
            order = overlaps.argsort(dim=1, stable=True)
            keys = torch.empty_like(order).scatter_(1, order, torch.arange(window).expand_as(order))
        elif self.sampling == "random":
            keys = _hashes(seed, torch.arange(first, first + len(examples)).unsqueeze(1), places)
        else:
            keys = torch.arange(window).expand_as(places)
        return self._chosen(places, allowed, keys)

    def _limit(self, positives: Tensor) -> Tensor:
        """The largest cosine of a negative; below the positive's even where that is negative."""
        limits = positives - (1 - self.max_share) * positives.abs()
        return limits if self.margin is None else torch.minimum(limits, positives - self.margin)

    def _chosen(self, places: Tensor, allowed: Tensor, keys: Tensor) -> Tensor:
        """The allowed places [e, w] with the smallest keys [e, w], in the order of their ranks: [e, n]."""
        last = torch.iinfo(torch.int64).max
        chosen = keys.masked_fill(~allowed, last).argsort(dim=1, stable=True)[:, : self.count].sort(dim=1).values
        is_there = allowed.gather(1, chosen)
        found = torch.full((len(places), self.count), -1)
        # what is allowed to the front, so that -1 comes last
        front = (~is_there).to(torch.int8).argsort(dim=1, stable=True)
        found[:, : chosen.shape[1]] = places.gather(1, chosen).masked_fill(~is_there, -1).gather(1, front)
        return found


def _sorted_by_anchor(pairs: Tensor) -> Tensor:
    return pairs[pairs[:, 0].argsort(stable=True)]


def _entries(queries: Tensor, pairs: Tensor) -> tuple[Tensor, Tensor]:
    """Rows and columns, among the anchors `queries` (sorted), of the pairs [f, 2] (sorted by anchor) that have one."""
    starts = torch.searchsorted(pairs[:, 0].contiguous(), queries)
    counts = torch.searchsorted(pairs[:, 0].contiguous(), queries, right=True) - starts
    rows = torch.repeat_interleave(torch.arange(len(queries)), counts)
    within = torch.arange(len(rows)) - torch.repeat_interleave(counts.cumsum(0) - counts, counts)
    return rows, pairs[starts[rows] + within, 1]


def _hashes(seed: int, examples: Tensor, documents: Tensor) -> Tensor:
    """Pseudo-random int64 in 0 … 2⁶²-1 of each example and document, whatever block they come in."""
    mixed = (examples * 0x9E3779B97F4A7C1 + documents) ^ ((seed * 0x2545F4914F6CDD1D) & ((1 << 62) - 1))
    for factor in (-0x40A7B892E31B1A47, -0x6B2FB644ECCEEE15):  # of splitmix64, as int64
        mixed = (mixed ^ (mixed >> 30)) * factor
    return (mixed ^ (mixed >> 31)) & ((1 << 62) - 1)
