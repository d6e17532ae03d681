"""How well queries find their documents, over a whole data set."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from lightning_modules.functional import (
    Cosine,
    Relevance,
    ScoreSpace,
    first_occurrences,
    relevant_ranks,
    retrieval_scores,
)
from run_store import UserError


class QueryScores(NamedTuple):
    """Scores of single queries, to compare two models query by query."""

    queries: Tensor
    """[q] int64 ids, ascending."""
    scores: dict[str, Tensor]
    """[q] float64 each by name; nan for a query without relevant documents."""


class RankedTexts(NamedTuple):
    """What the scores of all queries were made of, over all ranks."""

    document_ids: Tensor
    """[m] int64, ascending."""
    documents: Tensor
    """[m, d] of any norm, float32."""


class Retrieval(Metric):
    """Means over queries of NDCG@10, MRR@10, recall@1, @10 and @100 and MAP, every query ranking all documents.

    A text counts once whatever the number of batches and ranks that bring it: queries, documents and pairs are told
    apart by their ids. The embeddings of all ranks are held, in float32.

    Args:
        d: width of the embeddings.
        spaces: what else the same embeddings are scored in, by the name that its scores are told under.
        exclude_own: a document with the id of a query is no candidate for it.
    """

    full_state_update = False
    is_differentiable = False

    keeps: bool = False
    """Whether the documents of the last `compute` stay in `kept`."""
    kept: RankedTexts | None = None
    """Whoever changes the model empties it."""

    query_embeddings: list[Tensor]
    query_ids: list[Tensor]
    document_embeddings: list[Tensor]
    document_ids: list[Tensor]
    pairs: list[Tensor]
    gains: list[Tensor]

    def __init__(self, d: int, spaces: Mapping[str, ScoreSpace] | None = None, exclude_own: bool = False) -> None:
        super().__init__()
        self.d = d
        self.spaces: dict[str, ScoreSpace] = {"": Cosine(), **{f"{name}/": s for name, s in (spaces or {}).items()}}
        self.exclude_own = exclude_own
        for name in ("query_embeddings", "query_ids", "document_embeddings", "document_ids", "pairs", "gains"):
            self.add_state(name, [], dist_reduce_fx="cat")
        self._start()

    def reset(self) -> None:
        super().reset()
        self._start()

    def _start(self) -> None:
        """A rank that sees no batch must still hold tensors of the shape and type that the others send."""
        self.query_embeddings, self.document_embeddings = ([torch.empty(0, self.d, device=self.device)] for _ in "qd")
        self.query_ids, self.document_ids = ([torch.empty(0, dtype=torch.int64, device=self.device)] for _ in "qd")
        self.pairs = [torch.empty(0, 2, dtype=torch.int64, device=self.device)]
        self.gains = [torch.empty(0, device=self.device)]

    def update(
        self,
        query_embeddings: Tensor,
        query_ids: Tensor,
        document_embeddings: Tensor,
        document_ids: Tensor,
        pairs: Tensor,
        gains: Tensor | None = None,
    ) -> None:
        """Takes in a batch; any part of it may be empty, and pairs may come before what they name.

        Args:
            query_embeddings: [q, d], of any norm.
            query_ids: [q] int64.
            document_embeddings: [m, d], of any norm.
            document_ids: [m] int64.
            pairs: [r, 2] int64 ids of a query and of a document that is relevant to it.
            gains: [r] how relevant, 1 by default; 0 is not relevant.
        """
        gains = torch.ones(len(pairs), device=pairs.device) if gains is None else gains
        self.query_embeddings.append(query_embeddings.detach().float())
        self.query_ids.append(query_ids)
        self.document_embeddings.append(document_embeddings.detach().float())
        self.document_ids.append(document_ids)
        self.pairs.append(pairs)
        self.gains.append(gains.float())

    def compute(self) -> dict[str, Tensor]:
        """Scalars by name, those of a further space as NAME/ndcg@10 and so on; nan before any pair was seen.

        Raises:
            UserError: embeddings or scores are not finite, a pair names an unknown text, gains are below 0 or of two
                minds.
        """
        return {name: values.nanmean().float() for name, values in self._query_scores().scores.items()}

    def per_query(self) -> QueryScores:
        """What `compute` is the mean of. With several ranks all must call it."""
        with self.sync_context():
            return self._query_scores()

    def _query_scores(self) -> QueryScores:
        query_ids, queries = _each_once(self.query_ids, self.query_embeddings)
        document_ids, documents = _each_once(self.document_ids, self.document_embeddings)
        if self.keeps:
            self.kept = RankedTexts(document_ids, documents)
        relevance = self._relevance(query_ids, document_ids)
        excluded = None
        if self.exclude_own:
            own = torch.isin(query_ids, document_ids).nonzero().flatten()
            excluded = torch.stack([own, torch.searchsorted(document_ids, query_ids[own])], dim=1)
        scores = {}
        for name, space in self.spaces.items():
            found = relevant_ranks(space.scores(queries, documents), relevance, excluded)
            scores.update({f"{name}{key}": values for key, values in retrieval_scores(found).items()})
        return QueryScores(query_ids, scores)

    def _relevance(self, query_ids: Tensor, document_ids: Tensor) -> Relevance:
        pairs, gains = dim_zero_cat(self.pairs), dim_zero_cat(self.gains)
        if not bool((gains >= 0).all()):
            raise UserError("gains of the relevance pairs must be 0 or more: mend the data that the evaluation reads")
        different, places = torch.unique(pairs, dim=0, return_inverse=True)
        least, most = (gains.new_zeros(len(different)) for _ in "lm")
        least.scatter_reduce_(0, places, gains, "amin", include_self=False)
        most.scatter_reduce_(0, places, gains, "amax", include_self=False)
        if not torch.equal(least, most):
            query, document = different[(least != most).nonzero()[0, 0]].tolist()
            raise UserError(
                f"query {query} and document {document} have two different gains: leave one out of the data that the "
                "evaluation reads"
            )
        relevant = different[most > 0]
        queries, documents = (
            _places(relevant[:, side], ids, what)
            for side, ids, what in ((0, query_ids, "query"), (1, document_ids, "document"))
        )
        return Relevance(queries, documents, most[most > 0])


def _each_once(ids: list[Tensor], embeddings: list[Tensor]) -> tuple[Tensor, Tensor]:
    """The different ids, ascending, and the first embedding of each."""
    every = dim_zero_cat(ids)
    first, _ = first_occurrences(every)
    return every[first], dim_zero_cat(embeddings)[first]


def _places(wanted: Tensor, ids: Tensor, what: str) -> Tensor:
    """Places of ids among ascending ones."""
    known = torch.isin(wanted, ids)
    if not bool(known.all()):
        raise UserError(
            f"{what} {int(wanted[~known][0])} is named in a relevance pair, and no batch has brought it: evaluate on "
            "all batches, without limit_val_batches or limit_test_batches"
        )
    return torch.searchsorted(ids, wanted.contiguous())
