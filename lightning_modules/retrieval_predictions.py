"""What an embedding model finds for a few prompts among the documents held out for validation.

Shapes: q prompts, m documents, d width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from backbones.tokenizers import load_tokenizer
from datamodules.triplets import TokenisedTexts
from lightning_modules.embedding_evaluation import EmbeddingEvaluation
from lightning_modules.functional import BlockScores, Cosine, Relevance, relevant_ranks
from lightning_modules.predictions import Answer, AnswerSettings, Sample, drawn
from lightning_modules.triplet_data import TripletData
from run_store import UserError

TEXTS_AT_ONCE = 256
"""That are embedded together."""

Texts = tuple[TokenisedTexts, ...]


class Truth(NamedTuple):
    """Which documents are right, as pairs of a prompt's place and a document's; int64 each."""

    relevant: Tensor
    """[r, 2]."""
    excluded: Tensor
    """[e, 2] pairs that are not ranked: the prompt itself, and what is right for another prompt of a file."""
    extras: list[str]
    """Texts that are right and are no documents of the data: they stand behind these."""


class RetrievalPredictor:
    """Tells what is retrieved for fixed prompts. The documents are embedded once a moment, and not at all where a
    validation has just done that.

    Args:
        data: the datamodule.
        embed: embeddings [u, d] of u texts by the model as it is.
        evaluation: what a validation puts its embeddings into; they are kept there from now on until the next step.
        samples: the prompts; None takes `count` anchors of the validation set.
        count: how many.
        seed: draws them.
        settings: how much is told.

    Raises:
        UserError: nothing is held out for validation, or a tokenizer cannot be loaded.
    """

    def __init__(
        self,
        data: TripletData,
        embed: Callable[[Texts], Tensor],
        evaluation: EmbeddingEvaluation,
        samples: Sequence[Sample] | None,
        count: int,
        seed: int,
        settings: AnswerSettings,
    ) -> None:
        if not len(data.rows("validation")):
            raise UserError(
                "no example is held out for validation: raise data.validation_share, or give data.validation"
            )
        self._table = data.table("validation")
        self._task = data.retrieval("validation")
        self._embed = embed
        self._settings = settings
        how = data.tokenisers()[0].how
        self._tokenizer = load_tokenizer(how.tokenizer, how.revision)
        self._known: dict[int, str] = {}
        self._evaluation = evaluation
        evaluation.retrieval.keeps = True
        if samples is None:
            chosen = torch.tensor(drawn(len(self._task.queries), count, seed))
            self._queries = self._table.texts(self._task.queries[chosen])
            self._truth = self._truth_of_anchors(chosen)
            samples = self._anchors(chosen)
        else:
            self._queries = data.tokenised([sample.prompt for sample in samples], "anchor")
            self._truth = self._truth_of_samples(data, samples)
        self._samples = samples
        self._extras = data.tokenised(self._truth.extras, "positive")

    # ---- what there is to find

    def _truth_of_anchors(self, chosen: Tensor) -> Truth:
        places = {int(query): place for place, query in enumerate(chosen)}
        pairs = [[places[query], document] for query, document in self._task.relevant.tolist() if query in places]
        own = torch.searchsorted(self._task.documents, queries := self._task.queries[chosen])
        same = self._task.documents[own.clamp_max(len(self._task.documents) - 1)] == queries
        excluded = torch.stack([same.nonzero().flatten(), own[same]], dim=1)
        return Truth(_pairs(pairs), excluded, [])

    def _anchors(self, chosen: Tensor) -> list[Sample]:
        prompts = self._decoded(self._queries)
        first = {int(query): int(document) for query, document in self._truth.relevant.flip(0)}
        return [Sample(place, prompt, self._shown(first[place])) for place, prompt in enumerate(prompts)]

    def _truth_of_samples(self, data: TripletData, samples: Sequence[Sample]) -> Truth:
        known = len(self._task.documents)
        told = {place: sample.ground_truth for place, sample in enumerate(samples) if sample.ground_truth is not None}
        found = self._places_of(data.tokenised(list(told.values()), "positive"))
        relevant, extras = list[list[int]](), list[str]()
        for (prompt, text), document in zip(told.items(), found, strict=True):
            relevant.append([prompt, known + len(extras) if document is None else document])
            extras += [text] if document is None else []
        own = {document: prompt for prompt, document in relevant if document >= known}
        excluded = [[place, extra] for extra in own for place in range(len(samples)) if own[extra] != place]
        return Truth(_pairs(relevant), _pairs(excluded), extras)

    def _places_of(self, texts: Texts) -> list[int | None]:
        """Which document each text is, by its tokens."""
        wanted = [tuple(tokens.tolist()) for tokens in _each(texts[0])]
        lengths = self._table.lengths(0)[self._task.documents]
        candidates = torch.isin(lengths, texts[0].lengths).nonzero().flatten()
        found: dict[tuple[int, ...], int] = {}
        for part in torch.split(candidates, TEXTS_AT_ONCE) if len(wanted) else ():
            tokens = _each(self._table.texts(self._task.documents[part])[0])
            found.update(zip((tuple(one.tolist()) for one in tokens), part.tolist(), strict=True))
        return [found.get(one) for one in wanted]

    # ---- what is found

    def answers(self) -> list[Answer]:
        documents = self._documents()
        documents = torch.cat([documents, self._embedded(self._extras).to(documents)])
        block = Cosine().scores(self._embedded(self._queries).to(documents), documents)
        relevant, excluded = (pairs.to(documents.device) for pairs in self._truth[:2])
        gains = torch.ones(len(relevant), device=relevant.device)
        ranks = relevant_ranks(block, Relevance(relevant[:, 0], relevant[:, 1], gains), excluded)
        first: dict[int, int] = {}
        for prompt, rank in zip(ranks.queries.tolist(), ranks.ranks.tolist(), strict=True):
            first.setdefault(prompt, rank)
        return [self._answer(place, block, first.get(place)) for place in range(len(self._samples))]

    def _answer(self, place: int, block: BlockScores, rank: int | None) -> Answer:
        scores = block.of(place, place + 1)[0]
        right, left_out = (pairs[pairs[:, 0] == place, 1].to(scores.device) for pairs in self._truth[:2])
        scores[left_out] = -torch.inf
        candidates = len(scores) - len(left_out)
        best = scores.topk(min(self._settings.top_k, candidates))
        retrieved = [
            {"text": self._shown(document), "score": score, "relevant": document in right.tolist()}
            for document, score in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        ]
        prediction: dict[str, Any] = {"kind": "retrieval", "of": candidates, "retrieved": retrieved}
        told: dict[str, float] = {}
        if rank is not None:
            told = {"rank": float(rank), "reciprocal_rank": 1 / rank}
            prediction["rank"] = rank
            wrong = scores.clone()
            wrong[right] = -torch.inf
            if bool(wrong.isfinite().any()):
                told["margin"] = prediction["margin"] = float(scores[right].max() - wrong.max())
        sample = self._samples[place]
        return Answer(sample, prediction, told, _shown(sample, prediction))

    def _documents(self) -> Tensor:
        """[m, d]."""
        kept = self._evaluation.retrieval.kept
        # of a validation that was cut short, or of another split, there is something else
        if kept is not None and torch.equal(kept.document_ids.cpu(), self._task.documents):
            return kept.documents
        return self._embedded(*(self._table.texts(ids) for ids in torch.split(self._task.documents, TEXTS_AT_ONCE)))

    def _embedded(self, *parts: Texts) -> Tensor:
        return torch.cat([self._embed(part) for part in parts])

    def _shown(self, document: int) -> str:
        """The text of a document, by its place."""
        if (extra := document - len(self._task.documents)) >= 0:
            return self._truth.extras[extra]
        if document not in self._known:
            (self._known[document],) = self._decoded(self._table.texts(self._task.documents[document : document + 1]))
        return self._known[document]

    def _decoded(self, texts: Texts) -> list[str]:
        return [str(self._tokenizer.decode(tokens, skip_special_tokens=True)) for tokens in _each(texts[0])]


def _pairs(pairs: list[list[int]]) -> Tensor:
    return torch.tensor(pairs, dtype=torch.int64).view(-1, 2)


def _each(texts: TokenisedTexts) -> tuple[Tensor, ...]:
    return torch.split(texts.tokens, texts.lengths.tolist())


def _shown(sample: Sample, prediction: dict[str, Any]) -> dict[str, list[str]]:
    lines = [
        f"{found['score']:.3f} {'✓ ' if found['relevant'] else ''}{found['text']}" for found in prediction["retrieved"]
    ]
    shown = {"prompt": [sample.prompt], "retrieved": lines}
    if sample.ground_truth is not None:
        shown["ground truth"] = [sample.ground_truth]
    if "rank" in prediction:
        shown["rank"] = [f"{prediction['rank']} of {prediction['of']}"]
    if "margin" in prediction:
        shown["margin"] = [f"{prediction['margin']:.3f}"]
    return shown
