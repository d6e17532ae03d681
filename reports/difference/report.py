"""A difference as one page of HTML that needs nothing else: no network, no server, no other file."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from html import escape
from string import Template
from typing import Any

from torch import Tensor

from explanations import GROUPS, Gain
from lightning_modules.functional import BootstrapInterval
from reports.dashboard.contexts import Context, contexts
from reports.difference.subject import Subject
from reports.difference.words import gain_in_words, title_of
from reports.page_parts import as_json, parts, policy, style_and_script, when
from run_store import atomic_file

OWN = "reports.difference.page"
STYLES = ("difference.css", "narrow.css")
# in the order in which they are run
SCRIPTS = ("data.js", "shares.js", "scatter.js", "latents.js", "app.js")
SHOWN, CONTEXTS = 30, 5
"""Latents of each group that are shown with examples, and examples of each."""


def write_page(subject: Subject, path: str | os.PathLike[str]) -> None:
    """Writes the page; an older one is replaced.

    Raises:
        UserError: it cannot be written there.
    """
    page = page_of(subject)
    with atomic_file(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def page_of(subject: Subject) -> str:
    """The whole page."""
    style, script = style_and_script(OWN, STYLES, SCRIPTS)
    return Template(parts(OWN, ["page.html"])).substitute(
        policy=policy(style, script),
        style=style,
        script=script,
        title=escape(title_of(subject.difference)),
        run=escape(subject.name),
        written=escape(when()),
        data=as_json(_data(subject)),
    )


def _data(subject: Subject) -> dict[str, Any]:
    found, settings = subject.difference, subject.difference.settings
    live = found.fires.nonzero().flatten()
    return {
        "sides": list(found.sides),
        "ownAbove": settings.own_above,
        "rotatedBelow": settings.rotated_below,
        "latents": len(found.fires),
        "rows": found.features.rows,
        "fvu": found.fvu,
        "said": gain_in_words(found.gain, settings.split),
        "gain": _gain(found.gain),
        "groups": [
            {"name": name, "count": len(members), "moved": float(found.moved[members].sum())}
            for name, members in ((name, found.members(place)) for place, name in enumerate(GROUPS))
        ],
        # of every latent that fires, column by column
        "live": {
            "latent": live.tolist(),
            "group": found.groups.numbers[live].tolist(),
            "relative": _rounded(found.groups.relative_norms[live]),
            "cosine": _rounded(found.groups.cosines[live]),
            "density": _rounded(found.features.density[live], 6),
            "has": _rounded(found.weaker_has[live]),
            "moved": _rounded(found.moved[live], 6),
            "label": [subject.labels[latent] for latent in live.tolist()],
        },
        "shown": _shown(subject),
    }


def _gain(gain: Gain | str) -> dict[str, Any] | None:
    """Numbers to draw; None where there is no gain to share out."""
    if isinstance(gain, str) or not gain.is_sure:
        return None
    return {
        "parts": [
            {
                "name": part.name,
                "lost": _interval(part.lost),
                "share": _interval(part.share),
                "alone": part.alone,
            }
            for part in gain.parts
        ],
        "whole": _interval(gain.gain),
    }


def _shown(subject: Subject) -> list[list[dict[str, Any]]]:
    """The first latents of each group with their examples."""
    chosen = [subject.difference.members(place)[:SHOWN].tolist() for place in range(len(GROUPS))]
    every = [latent for group in chosen for latent in group]
    found = contexts(subject.store, subject.difference.features, every, CONTEXTS, 0)
    told = {latent: _contexts(subject, shown.strongest) for latent, shown in zip(every, found, strict=True)}
    return [[{"latent": latent, "contexts": told[latent]} for latent in group] for group in chosen]


def _contexts(subject: Subject, places: Sequence[Context]) -> list[dict[str, Any]]:
    return [
        {
            "document": subject.store.document_names[place.document],
            "texts": subject.pieces.of_all(place.tokens),
            "values": [round(value, 3) for value in place.values],
            "marked": place.marked,
        }
        for place in places
    ]


def _interval(interval: BootstrapInterval) -> list[float | None]:
    return [value if math.isfinite(value) else None for value in interval]


def _rounded(values: Tensor, digits: int = 4) -> list[float]:
    return [round(value, digits) for value in values.double().tolist()]
