"""An explained ranking as plain values, for text, JSON and pages."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch

from explanations.ranking import ExplainedRanking, by_cosine
from explanations.text_latents import TextLatents

TOLD_FROM = 1e-4
"""Terms below this are told as one sum: a page of fifty documents would be megabytes of them."""


@dataclass(frozen=True)
class Part:
    """What one latent has of a cosine.

    Attributes:
        latent: its number.
        diagonal: its own term.
        cross: half of the pairs that it is in.
        query, document: its pooled codes.
    """

    latent: int
    diagonal: float
    cross: float
    query: float
    document: float


@dataclass(frozen=True)
class Pair:
    """The term of a latent in the query with another one in the document."""

    query: int
    document: int
    term: float


@dataclass(frozen=True)
class Text:
    """Attributes:
    tokens: as they stand in the text, special ones among them.
    truncated: whether it was longer than the model reads.
    fires: by latent, [place, value] of each token on which it fires, the strongest first; of latents that are told of.
    """

    tokens: list[str]
    truncated: bool
    fires: dict[int, list[tuple[int, float]]]


@dataclass(frozen=True)
class Document:
    """Attributes:
    number: from 1, in the order in which they were given.
    source: where it is from, in words.
    given: the text, as it was given.
    rank: from 1.
    cosine: the sum of the four behind it.
    shared: the strongest diagonal terms, the largest first.
    parts: every latent with a term that counts, the largest first, whether both have it or not.
    others: what all other latents have together.
    pairs: the strongest cross terms.
    before: rank and cosine without the clamps; None where there are none.
    base: rank and cosine by the other model; None where there is none.
    """

    number: int
    source: str
    given: str
    rank: int
    cosine: float
    diagonal: float
    cross: float
    bias: float
    error: float
    shared: list[Part]
    parts: list[Part]
    others: float
    pairs: list[Pair]
    text: Text
    before: tuple[int, float] | None
    base: tuple[int, float] | None


@dataclass(frozen=True)
class Ranked:
    """A document that is not explained further."""

    number: int
    source: str
    rank: int
    cosine: float


@dataclass(frozen=True)
class Explanation:
    """Attributes:
    query: the text, as it was typed.
    read: its tokens and what fires on them.
    side: hook point that is told of.
    base_side: that of the other model; None where there is none.
    documents: those that are explained, in their order.
    rest: all others.
    labels: of each latent that is told of; empty where there is no label.
    clamps: value by latent.
    about: where it is from, in words, by what they answer.
    """

    query: str
    read: Text
    side: str
    base_side: str | None
    documents: list[Document]
    rest: list[Ranked]
    labels: dict[int, str]
    clamps: dict[int, float]
    about: dict[str, str] = field(default_factory=dict)

    def document(self, number: int) -> Document | None:
        """The explained one with a number."""
        return next((document for document in self.documents if document.number == number), None)


@dataclass(frozen=True)
class Difference:
    """Why one document's cosine is higher than another's: first − second, exactly.

    Attributes:
        parts: latent, difference of its diagonal terms and of its halves of pairs; the largest together first.
        others: of all other latents together.
        bias, error: of the residual's parts.
        total: of the cosines; the sum of all of these.
    """

    first: int
    second: int
    parts: list[tuple[int, float, float]]
    others: float
    bias: float
    error: float
    total: float


def told(
    query: str,
    reads: tuple[TextLatents, TextLatents],
    given: Sequence[tuple[str, str]],
    ranking: ExplainedRanking,
    pieces_of: Callable[[Sequence[int]], list[str]],
    *,
    side: str,
    clamps: Mapping[int, float],
    base: tuple[str, Sequence[float]] | None = None,
    top: int = 5,
    shown: Sequence[int] = (),
) -> Explanation:
    """Attributes of an `Explanation`; labels are empty still.

    Args:
        query: as it was typed.
        reads: the query's latents and the documents'.
        given: the n documents as they were given, and where each is from, in words.
        ranking: of them.
        pieces_of: the texts of token ids that follow each other.
        side: hook point that is told of.
        clamps: as the ranking has them.
        base: hook point and n cosines of the other model.
        top: latents and pairs of each document.
        shown: places of the documents that are explained.
    """
    ranks = _ranks(ranking.terms.cosine.tolist())
    before = _ranks(ranking.before.tolist())
    of_base = None if base is None else _ranks(list(base[1]))
    documents = []
    mentioned: set[int] = set(clamps)
    explained, order = set(shown), ranking.order
    for place in order:
        if place not in explained:
            continue
        shared, parts, others, pairs = _parts(ranking, place, top)
        latents = {part.latent for part in [*shared, *parts]} | {
            i for pair in pairs for i in (pair.query, pair.document)
        }
        mentioned |= latents
        documents.append(
            Document(
                number=place + 1,
                source=given[place][1],
                given=given[place][0],
                rank=ranks[place],
                **{
                    name: float(getattr(ranking.terms, name)[place])
                    for name in ("cosine", "diagonal", "cross", "bias", "error")
                },
                shared=shared,
                parts=parts,
                others=others,
                pairs=pairs,
                text=_text(reads[1], place, latents, pieces_of),
                before=(before[place], float(ranking.before[place])) if clamps else None,
                base=None if base is None or of_base is None else (of_base[place], float(base[1][place])),
            )
        )
    rest = [
        Ranked(place + 1, given[place][1], ranks[place], float(ranking.terms.cosine[place]))
        for place in order
        if place not in explained
    ]
    return Explanation(
        query=query,
        read=_text(reads[0], 0, mentioned, pieces_of),
        side=side,
        base_side=None if base is None else base[0],
        documents=documents,
        rest=rest,
        labels=dict.fromkeys(sorted(mentioned), ""),
        clamps=dict(clamps),
    )


def difference(ranking: ExplainedRanking, first: int, second: int, top: int) -> Difference:
    """Why the document at one place has a higher cosine than that at another.

    Args:
        ranking: of them.
        first, second: places.
        top: latents that are told one by one.
    """
    one, other = (ranking.latent_terms(place) for place in (first, second))
    diagonal, cross = one.diagonal - other.diagonal, one.cross - other.cross
    whole = diagonal + cross
    order = whole.abs().sort(descending=True, stable=True).indices[:top]
    order = order[whole[order] != 0]
    parts = [(int(ranking.latents[i]), float(diagonal[i]), float(cross[i])) for i in order]
    of = {
        name: float(getattr(ranking.terms, name)[first] - getattr(ranking.terms, name)[second])
        for name in ("bias", "error", "cosine")
    }
    others = float(whole.sum() - whole[order].sum())
    return Difference(first + 1, second + 1, parts, others, of["bias"], of["error"], of["cosine"])


def _parts(ranking: ExplainedRanking, place: int, top: int) -> tuple[list[Part], list[Part], float, list[Pair]]:
    """The strongest diagonal terms, all parts that count, what the others come to, and the strongest pairs."""
    terms = ranking.latent_terms(place)
    mine, other = ranking.codes(place)

    def part(at: int) -> Part:
        return Part(
            int(ranking.latents[at]),
            float(terms.diagonal[at]),
            float(terms.cross[at]),
            float(mine[at]),
            float(other[at]),
        )

    order = terms.whole.abs().sort(descending=True, stable=True).indices
    counted = order[(terms.whole[order].abs() >= TOLD_FROM) | (terms.diagonal[order].abs() >= TOLD_FROM)]
    others = float(terms.whole.sum() - terms.whole[counted].sum())
    first, second, values = (column.tolist() for column in ranking.pairs(place, top))
    return (
        [part(at) for at in ranking.strongest(place, top).tolist()],
        [part(at) for at in counted.tolist()],
        others,
        [Pair(*pair) for pair in zip(first, second, values, strict=True)],
    )


def _text(read: TextLatents, place: int, latents: set[int], pieces_of: Callable[[Sequence[int]], list[str]]) -> Text:
    fires: dict[int, list[tuple[int, float]]] = {}
    for token, latent, value in read.firings(place):
        if latent in latents:
            fires.setdefault(latent, []).append((token, value))
    strongest = {latent: sorted(on, key=lambda pair: -abs(pair[1])) for latent, on in sorted(fires.items())}
    return Text(pieces_of(read.tokens_of(place)), bool(read.truncated[place]), strongest)


def _ranks(cosines: Sequence[float]) -> list[int]:
    """From 1, of each."""
    ranks = [0] * len(cosines)
    for rank, place in enumerate(by_cosine(torch.tensor(cosines, dtype=torch.float64)), start=1):
        ranks[place] = rank
    return ranks
