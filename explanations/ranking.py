"""The cosines of a query with some documents, taken apart.

Shapes: n documents, m latents that are in any of the texts, s = d_sae latents.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from explanations.text_latents import TextLatents, active
from lightning_modules.functional import (
    CrossPairs,
    LatentTerms,
    SimilarityTerms,
    SplitVectors,
    latent_terms,
    similarity_terms,
    strongest_pairs,
)
from run_store import UserError


class ExplainedRanking:
    """Documents by their cosine with a query, and what each cosine is made of.

    Args:
        query: one text.
        documents: n texts, of the same reader and hook point.
        clamps: by latent, the value that its pooled code in the query is set to; 0 switches it off. With the mean for a
            pooling that is the same as setting the latent on every token.

    Attributes:
        latents: int64 [m], ascending.
        terms: [n] each, with the clamps.
        before: [n] cosines without the clamps.

    Raises:
        UserError: a clamp names no latent of the autoencoder.
    """

    def __init__(self, query: TextLatents, documents: TextLatents, clamps: Mapping[int, float] | None = None) -> None:
        clamps = clamps or {}
        for latent in clamps:
            if not 0 <= latent < len(query.W):
                raise UserError(f"clamp: there is no latent {latent}: they go from 0 to {len(query.W) - 1}")
        named = torch.tensor(sorted(clamps), dtype=torch.int64)
        self.latents = torch.unique(torch.cat([active(query, documents), named]))
        self._W = query.W[self.latents]
        self._documents = documents.split(self.latents)
        unclamped = query.split(self.latents)
        codes = unclamped.codes.clone()
        codes[0, torch.searchsorted(self.latents, named)] = torch.tensor([clamps[int(i)] for i in named]).double()
        self.query = unclamped._replace(codes=codes)
        self.terms = SimilarityTerms(*(part[0] for part in similarity_terms(self.query, self._documents, self._W)))
        self.before = similarity_terms(unclamped, self._documents, self._W).cosine[0]

    @property
    def order(self) -> list[int]:
        """Numbers of the documents, the highest cosine first."""
        return by_cosine(self.terms.cosine)

    def latent_terms(self, document: int) -> LatentTerms:
        """What each latent has of a document's cosine, [m] each."""
        return LatentTerms(*(part[0] for part in latent_terms(self.query, self._only(document), self._W)))

    def pairs(self, document: int, count: int) -> CrossPairs:
        """The strongest pairs of different latents in a document's cosine; by the latents' own numbers."""
        first, second, terms = strongest_pairs(self.query, self._only(document), self._W, count)
        return CrossPairs(self.latents[first], self.latents[second], terms)

    def strongest(self, document: int, count: int) -> Tensor:
        """int64 [at most count] places in `latents` of the largest diagonal terms by magnitude; none of 0."""
        diagonal = self.latent_terms(document).diagonal
        return diagonal.abs().topk(min(count, int((diagonal != 0).sum()))).indices

    def codes(self, document: int) -> tuple[Tensor, Tensor]:
        """Pooled codes [m] in the query, clamped, and in a document."""
        return self.query.codes[0], self._documents.codes[document]

    def _only(self, document: int) -> SplitVectors:
        return SplitVectors(*(part[document : document + 1] for part in self._documents))


def by_cosine(cosines: Tensor) -> list[int]:
    """Places of cosines [n], the highest first; equal ones in their order."""
    return cosines.argsort(descending=True, stable=True).tolist()  # type: ignore[no-any-return]
