"""The texts that a latent is shown by: which of the places that were kept, and the tokens around them.

Shapes: s latents, n places of each, w rows of a window.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from datamodules.shards import ActivationStore
from features import Features, Places


class Context(NamedTuple):
    """A place with the rows of its document around it."""

    document: int
    position: int
    """Of the token in its document."""
    tokens: list[int]
    """Token ids, in order."""
    marked: int
    """Which of them the place is."""
    values: list[float]
    """What the latent is on each."""
    weaker: float
    """Share of the latent's firings that are weaker than this one."""


class Shown(NamedTuple):
    """The contexts of one latent."""

    strongest: list[Context]
    sampled: list[Context]
    """From its whole range, the strongest first."""


def contexts(
    store: ActivationStore, features: Features, latents: Sequence[int], strongest: int, sampled: int
) -> Iterator[Shown]:
    """Of some latents, one after the other.

    Args:
        store: where the rows are.
        features: of the pass.
        latents: their numbers.
        strongest: at most so many of the places where it fires most. Those in documents that had none yet come first,
            since a text that repeats itself would fill the list; the same words twice are shown once.
        sampled: at most so many from its whole range, evenly spread over the firings.
    """
    chosen = torch.tensor(list(latents), dtype=torch.int64)
    top = _windows(store, _of(features.strongest, chosen))
    spread = _windows(store, _of(features.sampled, chosen))
    for line, latent in enumerate(latents):
        below = features.histogram[latent].cumsum(0) / features.counts[latent].clamp_min(1)
        width = float(features.bin_widths[latent])

        def told(place: Context, below: Tensor = below, width: float = width) -> Context:
            bins = int(abs(place.values[place.marked]) / width) if width else 0
            return place._replace(weaker=float(below[bins - 1]) if bins else 0.0)

        yield Shown(
            [told(place) for place in varied(top[line], strongest)],
            [told(place) for place in even(spread[line], sampled)],
        )


def varied(places: Sequence[Context], count: int) -> list[Context]:
    """The first `count`, those of new documents before others, none with the same words as another; in their order."""
    seen_words: set[tuple[int, ...]] = set()
    different = []
    for place in places:
        words = tuple(place.tokens[max(0, place.marked - 6) : place.marked + 4])
        if words not in seen_words:
            seen_words.add(words)
            different.append(place)
    documents = [place.document for place in different]
    repeated = [documents.index(document) != at for at, document in enumerate(documents)]
    kept = sorted(range(len(different)), key=lambda at: (repeated[at], at))[:count]
    return [different[at] for at in sorted(kept)]


def even(places: Sequence[Context], count: int) -> list[Context]:
    """`count` of them evenly spread by magnitude, the strongest first."""
    ordered = sorted(places, key=lambda place: -abs(place.values[place.marked]))
    if len(ordered) <= count:
        return ordered
    return [ordered[(2 * at + 1) * len(ordered) // (2 * count)] for at in range(count)]


def _of(places: Places, latents: Tensor) -> Places:
    return Places(*(part[latents] for part in places))


def _windows(store: ActivationStore, places: Places) -> list[list[Context]]:
    """The contexts of every latent, in the order of its places."""
    reach = places.around.shape[2] // 2
    line, slot = (places.rows >= 0).nonzero(as_tuple=True)
    rows = places.rows[line, slot]
    around = rows.unsqueeze(1) + torch.arange(-reach, reach + 1)
    inside = (around >= 0) & (around < store.rows)
    # every row is read once, however many windows it is in
    different, number = torch.unique(around.clamp(0, store.rows - 1), return_inverse=True)
    source = store.provenance(different)
    tokens, documents, positions = (column[number].long() for column in source)
    same = inside & (documents == documents[:, reach : reach + 1])
    values = places.around[line, slot].float().nan_to_num(0.0)
    found: list[list[Context]] = [[] for _ in range(len(places.rows))]
    for at, latent in enumerate(line.tolist()):
        own = same[at]
        found[latent].append(
            Context(
                int(documents[at, reach]),
                int(positions[at, reach]),
                tokens[at, own].tolist(),
                int(own[:reach].sum()),
                values[at, own].tolist(),
                0.0,
            )
        )
    return found
