"""What the dashboard's script reads: an index of all latents in the page, and files of some latents each beside it.

A file from file:// may not be fetched by a page, but it may be a script: each calls `receive` with its number and its
content. Texts of tokens stand once a file, and are named by their number in it.
"""

from __future__ import annotations

from typing import Any

from features import BINS, Facts
from reports.dashboard.contexts import Context, Shown, contexts
from reports.dashboard.subject import SpokenFor, Subject

LATENTS_A_FILE = 64
TYPICAL_IN_INDEX = 4
"""Tokens of each latent that can be searched for before any file is read."""


class Texts:
    """Texts by number, each kept once."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self._numbers: dict[str, int] = {}

    def number(self, text: str) -> int:
        """That of a text."""
        if text not in self._numbers:
            self._numbers[text] = len(self.texts)
            self.texts.append(text)
        return self._numbers[text]


def index_of(subject: Subject, dense_above: float) -> dict[str, Any]:
    """Of all latents what tables, search and map need: one list a column."""
    facts, texts = subject.facts, Texts()
    features = facts.features
    typical = [
        [texts.number(subject.text_of(token)) for token in tokens if token >= 0]
        for tokens in facts.patterns["token"].tokens[:, :TYPICAL_IN_INDEX, 0].tolist()
    ]
    return {
        "name": subject.name,
        "rows": features.rows,
        "perFile": LATENTS_A_FILE,
        "denseAbove": dense_above,
        "files": -(-len(features.counts) // LATENTS_A_FILE),
        "counts": features.counts.tolist(),
        "largest": rounded(features.largest.tolist()),
        "means": rounded(features.means.tolist()),
        "labels": subject.labels,
        "explained": [round(label.explained, 3) for label in facts.labels],
        "typical": typical,
        "places": [round(value, 2) for value in facts.places.flatten().tolist()],
        "texts": texts.texts,
        "unembedding": "" if isinstance(subject.spoken_for, SpokenFor) else subject.spoken_for,
    }


def tokens_of(subject: Subject) -> dict[str, Any]:
    """Which latents fire on a token: latents and percents by turns, by the token's text."""
    found: dict[str, list[list[float]]] = {}
    by_token = subject.facts.by_token
    for token, latents, shares in zip(
        by_token.tokens.tolist(), by_token.latents.tolist(), by_token.shares.tolist(), strict=True
    ):
        # tokens that differ by the space before them alone are one to a reader
        mine = found.setdefault(subject.text_of(token).strip().lower(), [])
        mine.extend([latent, share] for latent, share in zip(latents, shares, strict=True) if latent >= 0)
    return {
        text: [
            number
            for latent, share in sorted(pairs, key=lambda pair: -pair[1])
            for number in (latent, round(100 * share))
        ]
        for text, pairs in found.items()
    }


def file_of(subject: Subject, number: int) -> dict[str, Any]:
    """All that is told of the latents of one file."""
    first = number * LATENTS_A_FILE
    latents = range(first, min(first + LATENTS_A_FILE, len(subject.labels)))
    texts, documents = Texts(), Texts()
    shown = contexts(subject.store, subject.facts.features, latents, subject.strongest, subject.sampled)
    told = [
        _latent(subject, latent, contexts_of, texts, documents)
        for latent, contexts_of in zip(latents, shown, strict=True)
    ]
    return {"latents": told, "texts": texts.texts, "documents": documents.texts}


def _latent(subject: Subject, latent: int, shown: Shown, texts: Texts, documents: Texts) -> dict[str, Any]:
    facts = subject.facts
    histogram = facts.features.histogram[latent]
    used = int(histogram.nonzero().max()) + 1 if bool(histogram.any()) else 0
    return {
        "histogram": histogram[: min(BINS, used)].tolist(),
        "width": float(facts.features.bin_widths[latent]),
        "patterns": _patterns(subject, facts, latent, texts),
        "partners": _pairs(facts.partners.latents[latent].tolist(), facts.partners.shares[latent].tolist()),
        "neighbours": _pairs(facts.neighbours[latent].tolist(), facts.cosines[latent].tolist()),
        "strongest": [_context(subject, place, texts, documents) for place in shown.strongest],
        "sampled": [_context(subject, place, texts, documents) for place in shown.sampled],
        **_spoken_for(subject, latent, texts),
    }


def _patterns(subject: Subject, facts: Facts, latent: int, texts: Texts) -> dict[str, list[list[Any]]]:
    """Of each kind: [the numbers of its texts], share and lift."""
    told: dict[str, list[list[Any]]] = {}
    for kind, patterns in facts.patterns.items():
        rows = zip(
            patterns.tokens[latent].tolist(),
            patterns.shares[latent].tolist(),
            patterns.lifts[latent].tolist(),
            strict=True,
        )
        told[kind] = [
            [
                [texts.number(subject.text_of(token)) for token in tokens if token >= 0],
                round(share, 3),
                rounded_one(lift),
            ]
            for tokens, share, lift in rows
            if tokens[0] >= 0
        ]
    return told


def _pairs(latents: list[int], figures: list[float]) -> list[list[float]]:
    return [[latent, round(figure, 3)] for latent, figure in zip(latents, figures, strict=True) if latent >= 0]


def _context(subject: Subject, place: Context, texts: Texts, documents: Texts) -> list[Any]:
    """Document, position, weaker, marked, texts, and place and value by turns of where the latent fires."""
    on = [number for at, value in enumerate(place.values) if value for number in (at, rounded_one(value))]
    return [
        documents.number(subject.store.document_names[place.document]),
        place.position,
        round(place.weaker, 3),
        place.marked,
        [texts.number(text) for text in subject.texts_of(place.tokens)],
        on,
    ]


def _spoken_for(subject: Subject, latent: int, texts: Texts) -> dict[str, list[list[float]]]:
    spoken = subject.spoken_for
    if not isinstance(spoken, SpokenFor):
        return {}
    sides = {
        "promoted": (spoken.promoted, spoken.promoted_scores),
        "suppressed": (spoken.suppressed, spoken.suppressed_scores),
    }
    return {
        side: [
            [texts.number(subject.text_of(token)), round(score, 3)]
            for token, score in zip(tokens[latent].tolist(), scores[latent].tolist(), strict=True)
        ]
        for side, (tokens, scores) in sides.items()
    }


def rounded(values: list[float]) -> list[float]:
    """To three digits each: more are not read, and every digit is a byte."""
    return [rounded_one(value) for value in values]


def rounded_one(value: float) -> float:
    """As `rounded`."""
    short = float(f"{value:.3g}")
    return int(short) if short == int(short) and abs(short) < 1e9 else short
