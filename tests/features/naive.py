"""What the room of features gathers, written as loops over dictionaries."""

from collections import Counter, defaultdict
from math import floor, log2

import torch
from torch import Tensor

from features.hashing import uniform


def firings(dense: Tensor) -> dict[int, list[tuple[int, float]]]:
    """latent → (row, value) in order of the rows, of values [rows, s]."""
    found: dict[int, list[tuple[int, float]]] = defaultdict(list)
    for row, values in enumerate(dense.tolist()):
        for latent, value in enumerate(values):
            if value != 0:
                found[latent].append((row, value))
    return found


def window(dense: Tensor, documents: list[int], latent: int, row: int, reach: int) -> list[float | None]:
    """None where there is no such row in the document."""
    around = range(row - reach, row + reach + 1)
    inside = [0 <= other < len(documents) and documents[other] == documents[row] for other in around]
    return [float(dense[other, latent]) if there else None for other, there in zip(around, inside, strict=True)]


def strongest(fired: list[tuple[int, float]], count: int) -> list[tuple[int, float]]:
    return sorted(fired, key=lambda place: -abs(place[1]))[:count]  # stable: of equal ones the first stays


def sampled(fired: list[tuple[int, float]], latent: int, count: int) -> list[tuple[int, float]]:
    return sorted(fired, key=lambda place: float(uniform(torch.tensor(place[0]), torch.tensor(latent))))[:count]


def histogram(fired: list[tuple[int, float]], bins: int) -> tuple[float, list[int]]:
    """Width and counts."""
    largest = max(abs(value) for _, value in fired)
    exponent = -200
    while largest >= bins * 2.0**exponent:
        exponent += 1
    counts = Counter(floor(abs(value) / 2.0**exponent) for _, value in fired)
    return 2.0**exponent, [counts[at] for at in range(bins)]


def partners(dense: Tensor, latent: int, count: int) -> list[tuple[int, float]]:
    """(other, share) by the cosine of firing, lowest numbers first among equals."""
    on = dense != 0
    own = on[:, latent].sum().item()
    found = []
    for other in range(dense.shape[1]):
        together = (on[:, latent] & on[:, other]).sum().item()
        if other != latent and together:
            found.append((-together / (own * on[:, other].sum().item()) ** 0.5, other, together / own))
    return [(other, share) for _, other, share in sorted(found)[:count]]


def patterns(keys: list[tuple[int, ...] | None], fired: list[tuple[int, float]]) -> dict[tuple[int, ...], list[float]]:
    """pattern → share, lift, score, of those that repeat and are more frequent than anywhere."""
    whole = sum(abs(value) for _, value in fired)
    everywhere = Counter(keys)
    hits: Counter[tuple[int, ...]] = Counter()
    explained: dict[tuple[int, ...], float] = defaultdict(float)
    for row, value in fired:
        key = keys[row]
        if key is not None:
            hits[key] += 1
            explained[key] += abs(value)
    found = {}
    for key, count in hits.items():
        share = explained[key] / whole
        lift = share * len(keys) / everywhere[key]
        if count >= 2 and lift > 2**0.5:
            found[key] = [share, lift, share * log2(lift)]
    return found
