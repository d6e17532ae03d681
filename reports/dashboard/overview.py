"""The first thing that is seen: what the autoencoder is, how it does, and some latents to begin with. All of it is HTML
that needs no script.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from math import log10

from features import KINDS, Kind, Label
from lightning_modules.metrics import DENSE_ABOVE, log_density
from reports.dashboard.contexts import Context, contexts
from reports.dashboard.drawing import curve_chart, density_chart
from reports.dashboard.subject import Subject
from reports.training_curves import Curve

TO_BEGIN_WITH = 12
LEVELS = 9
"""Shades, of which the style has a class each."""
FEWEST_FIRINGS = 50
MOST_FREQUENT = DENSE_ABOVE / 5
SHORTEST_WORD = 3
LEAST_CLARITY = 0.5
BEFORE, AFTER = 20, 8
"""Characters before the marked token and tokens after it, in a card."""

CURVES: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "FVU": ("How much is missed", {"train/fvu": "training", "val/fvu": "held out"}),
    "L0": ("Latents that fire on a token", {"train/l0": "training", "val/l0": "held out"}),
    "Dead": ("Latents that are dead, %", {"train/dead": "in the training window", "val/dead": "on held-out text"}),
}
"""By the name of a chart: what it shows, and the curves in it with the words for them."""


def curve_names() -> list[str]:
    """Metrics that there are charts for."""
    return [name for _, curves in CURVES.values() for name in curves]


def overview(subject: Subject) -> str:
    """The section's content."""
    return "\n".join((_about(subject), _figures(subject), _to_begin_with(subject), _charts(subject)))


def _about(subject: Subject) -> str:
    rows = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in subject.about.items()
    )
    return f'<dl class="about-model">{rows}</dl>'


def _figures(subject: Subject) -> str:
    features = subject.facts.features
    density = features.density
    count = len(density)
    dead, dense = int((density == 0).sum()), int((density > DENSE_ABOVE).sum())
    named = sum(bool(label) for label in subject.labels)
    cards = [
        ("FVU", f"{subject.scores['fvu']:.4f}", _held_out(subject, "fvu", ".4f") or "share of the variance missed"),
        ("L0", f"{float(density.sum()):.1f}", "latents fire on a token"),
        ("Latents", f"{count:,}", f"{named:,} have an automatic label"),
        ("Dead", f"{dead:,}", f"{dead / max(1, count):.2%} fire on no token" if dead else "every latent fires"),
        ("Dense", f"{dense:,}", f"{dense / max(1, count):.2%} fire on over {DENSE_ABOVE:.0%} of the tokens"),
    ]
    links = {"Latents": "#/latents", "Dead": "#/latents?show=dead", "Dense": "#/latents?show=dense"}
    return (
        '<div class="figures">'
        + "".join(
            f'<div class="card"><h2>{name}</h2><p class="figure"><b>{value}</b></p><p class="muted">{escape(words)}</p>'
            + (
                f'<a class="whole-card" href="{links[name]}" aria-label="{name}: show them"></a>'
                if name in links
                else ""
            )
            + "</div>"
            for name, value, words in cards
        )
        + "</div>"
    )


def _held_out(subject: Subject, name: str, form: str) -> str:
    value = subject.scores.get(f"val/{name}")
    return "" if value is None else f"{value:{form}} on held-out documents"


def _to_begin_with(subject: Subject) -> str:
    latents = clear_latents(subject, TO_BEGIN_WITH)
    if not latents:
        return ""
    shown = contexts(subject.store, subject.facts.features, latents, 3, 0)
    cards = "".join(
        _card(subject, latent, contexts_of.strongest) for latent, contexts_of in zip(latents, shown, strict=True)
    )
    return (
        '<section aria-labelledby="begin"><h2 class="heading" id="begin">Begin with these</h2>'
        '<p class="muted lead">Latents whose automatic label explains most of what they do. A label names the '
        "tokens that are typical of a latent's activation; nobody has checked it.</p>"
        f'<div class="latent-cards">{cards}</div></section>'
    )


def clear_latents(subject: Subject, count: int) -> list[int]:
    """Latents that mean something at first sight: those whose label explains nearly all of them, in words; neither rare
    nor dense, of every kind of label some, and no two that are named alike.
    """
    features = subject.facts.features
    by_kind: dict[Kind, list[tuple[float, int]]] = {kind: [] for kind in KINDS}
    for latent, (label, firings, density) in enumerate(
        zip(subject.facts.labels, features.counts.tolist(), features.density.tolist(), strict=True)
    ):
        clarity = _clarity(label, subject)
        if (
            label.kind is not None
            and firings >= FEWEST_FIRINGS
            and density <= MOST_FREQUENT
            and clarity >= LEAST_CLARITY
        ):
            by_kind[label.kind].append((clarity, latent))
    ranked = [sorted(found, key=lambda one: (-one[0], one[1])) for found in by_kind.values()]
    chosen: list[int] = []
    named: set[str] = set()
    while len(chosen) < count and any(ranked):
        for found in ranked:
            while found:
                latent = found.pop(0)[1]
                words = {"".join(map(subject.text_of, one)).strip() for one in subject.facts.labels[latent].patterns}
                if named.isdisjoint(words):
                    chosen.append(latent)
                    named |= words
                    break
    return chosen[:count]


def _clarity(label: Label, subject: Subject) -> float:
    """What the label explains, by the share of its patterns that are words: signs and parts of words say little to
    somebody who has not seen the text.
    """
    whole = 0
    for pattern in label.patterns:
        texts = [subject.text_of(token) for token in pattern]
        in_parts = any(text[:1].isalnum() for text in texts)
        whole += not in_parts and sum(map(str.isalpha, "".join(texts))) >= SHORTEST_WORD
    return label.explained * whole / max(1, len(label.patterns))


def _card(subject: Subject, latent: int, shown: Sequence[Context]) -> str:
    lines = "".join(f'<p class="text snippet">{_snippet(subject, place)}</p>' for place in shown)
    share = float(subject.facts.features.density[latent])
    return (
        f'<a class="latent-card" href="#/latent/{latent}"><span class="latent-name">'
        f"<b>{escape(subject.labels[latent])}</b>"
        f'<span class="muted">{latent} · {share:.2%}</span></span>{lines}</a>'
    )


def _snippet(subject: Subject, place: Context) -> str:
    texts = subject.texts_of(place.tokens)
    largest = max((abs(value) for value in place.values), default=0.0) or 1.0
    first = place.marked
    while first > 0 and len("".join(texts[first - 1 : place.marked])) <= BEFORE:
        first -= 1
    while first < place.marked and texts[first][:1].isalnum():
        first += 1  # not in the middle of a word
    kept = range(first, min(len(texts), place.marked + AFTER + 1))
    return "".join(_token(texts[at], abs(place.values[at]) / largest) for at in kept).lstrip()


def _token(text: str, strength: float) -> str:
    """The space before a token is no part of its shade."""
    inner = text.lstrip(" ")
    space, shown = text[: len(text) - len(inner)], escape(inner.replace("\n", "↵") or "␣")
    level = round(LEVELS * strength)
    return f'{space}<span class="h{level}">{shown}</span>' if level else escape(text.replace("\n", "↵"))


def _charts(subject: Subject) -> str:
    features = subject.facts.features
    density = density_chart(log_density(features.density).tolist(), log10(DENSE_ABOVE))
    charts = [_chart("How often latents fire", density, (("", f"dense: over {DENSE_ABOVE:.0%}"),))]
    by_name = {curve.name: curve for curve in subject.curves}
    for title, (words, names) in CURVES.items():
        factor = 100 if title == "Dead" else 1
        curves = [by_name[name].scaled(factor) for name in names if name in by_name]
        drawn = curve_chart(curves, f"{words}, over steps of the optimiser", from_zero=title == "Dead")
        charts.append(_chart(words, drawn, _key(curves, names)))
    return (
        '<section aria-labelledby="charts"><h2 class="heading" id="charts">Density and training</h2>'
        f'<div class="charts">{"".join(charts)}</div></section>'
    )


def _key(curves: Iterable[Curve], names: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple((f"curve-{at}", names[curve.name]) for at, curve in enumerate(curves))


def _chart(title: str, drawn: str, key: Sequence[tuple[str, str]]) -> str:
    if not drawn:
        return ""
    keys = "".join(f'<span class="key {style or "key-border"}">{escape(words)}</span>' for style, words in key)
    return f'<figure class="card"><figcaption><h3>{escape(title)}</h3><span>{keys}</span></figcaption>{drawn}</figure>'
