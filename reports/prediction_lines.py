"""A prediction in words, line by line."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from reports.text_columns import visible
from run_store.predictions import Prediction


class Line(NamedTuple):
    """One thing that a prediction says.

    Attributes:
        label: what it is about.
        text: what is said.
        compared: what must differ to count as a change: of a retrieved text its words and not its score, of a token
            which latents fire and not how much.
    """

    label: str
    text: str
    compared: str


def lines_of(prediction: Prediction) -> list[Line]:
    """Its scores, and what its kind says; of an unknown kind, or one that is not as it should be, the JSON itself."""
    scores = {name: f"{value:.4g}" for name, value in prediction.scores.items()}
    return [*(Line(visible(name), text, text) for name, text in scores.items()), *_content(prediction.prediction)]


def gist_of(prediction: Prediction) -> str:
    """One line that tells the most of it."""
    lines = _content(prediction.prediction)
    return lines[0].text if lines else ""


def _content(content: Mapping[str, Any]) -> list[Line]:
    try:
        if (reading := _KINDS.get(content.get("kind"))) is not None:
            return list(reading(content))
    except (KeyError, TypeError, ValueError, AttributeError):
        pass  # another release may mean something else by it
    return list(_plain(content, "prediction"))


def _retrieval(content: Mapping[str, Any]) -> Iterator[Line]:
    for place, found in enumerate(content["retrieved"], start=1):
        mark = "✓ " if found.get("relevant") else ""
        text = visible(found["text"])
        yield Line(f"retrieved {place}", f"{found['score']:.3f} {mark}{text}", text)


def _latents(content: Mapping[str, Any]) -> Iterator[Line]:
    for name, text in content.get("continuation", {}).items():
        yield Line(visible(name), visible(text), text)
    for place, token in enumerate(content["tokens"]):
        latents = token["latents"]
        strongest = " ".join(f"{latent}:{value:.3g}" for latent, value in latents)
        text = visible(token["text"])
        error = "" if token.get("error") is None else f" error {token['error']:.3g}"
        yield Line(f"token {place}", f"{text!r} {strongest}{error}", f"{text!r} {[latent for latent, _ in latents]}")


def _plain(content: Any, path: str) -> Iterator[Line]:
    if isinstance(content, Mapping) and content:
        for name, inner in content.items():
            yield from _plain(inner, f"{path}.{name}")
    else:
        text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
        yield Line(visible(path), visible(text), text)


_KINDS: dict[Any, Callable[[Mapping[str, Any]], Iterator[Line]]] = {"retrieval": _retrieval, "latents": _latents}
