"""The true dictionary: unit vectors, more of them than dimensions, and how close they come to each other.

Shapes: n atoms of width d.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from run_store import UserError

STEPS = 3000
"""Steps that are spent on lowering the coherence before it counts as out of reach."""

BLOCK = 256
"""Atoms that are measured at a time."""

Atoms = npt.NDArray[np.float64]


class Coherence(NamedTuple):
    """How far a dictionary is from orthogonal: |cosine| between different atoms."""

    smallest: float
    mean: float
    largest: float
    """What is called the coherence of a dictionary."""
    bound: float
    """The least that `largest` can be for as many atoms in as many dimensions, see `welch_bound`."""


def unit_atoms(count: int, d: int, generator: np.random.Generator, max_coherence: float | None = None) -> Atoms:
    """Directions drawn evenly from the sphere, then pushed apart as far as `max_coherence` asks.

    Args:
        count: atoms; more than d are in superposition.
        d: width.
        generator: draws them.
        max_coherence: the largest |cosine| between two atoms that is allowed; None takes them as they fall.

    Returns:
        float64 [count, d], rows of norm 1.

    Raises:
        UserError: the coherence cannot be reached.
    """
    atoms = _normalized(generator.standard_normal((count, d)))
    if max_coherence is None or count == 1:
        return atoms
    if max_coherence < (bound := welch_bound(count, d)):
        raise UserError(
            f"max_coherence {max_coherence} cannot be had: {count} atoms in {d} dimensions are never below {bound:.4f} "
            "(the Welch bound); raise it or d"
        )
    return _pushed_apart(atoms, max_coherence)


def welch_bound(count: int, d: int) -> float:
    """The largest |cosine| among `count` unit vectors is never below sqrt((count − d) / (d (count − 1))) (Welch 1974,
    "Lower bounds on the maximum cross correlation of signals"); 0 when they can be orthogonal.
    """
    return math.sqrt((count - d) / (d * (count - 1))) if count > d else 0.0


def coherence_of(atoms: npt.NDArray[np.floating]) -> Coherence:
    """Measures atoms [n, d] of norm 1, some against the rest at a time: the whole of n × n is never in memory."""
    count, d = atoms.shape
    if count == 1:
        return Coherence(0.0, 0.0, 0.0, 0.0)
    smallest, total, largest = 1.0, 0.0, 0.0
    for start in range(0, count, BLOCK):
        block = np.abs(atoms[start : start + BLOCK] @ atoms[start:].T)
        cosines = block[np.triu_indices(len(block), k=1, m=block.shape[1])]
        if len(cosines):
            smallest, largest = min(smallest, float(cosines.min())), max(largest, float(cosines.max()))
            total += float(cosines.sum(dtype=np.float64))
    return Coherence(smallest, 2 * total / (count * (count - 1)), largest, welch_bound(count, d))


def _pushed_apart(atoms: Atoms, max_coherence: float) -> Atoms:
    """Gradient descent on Σ max(|cosine| − t, 0)² with t just below what is asked, so that it is reached and not only
    neared.
    """
    target = 0.97 * max_coherence
    for _ in range(STEPS):
        cosines = atoms @ atoms.T
        np.fill_diagonal(cosines, 0)
        largest = np.abs(cosines).max()
        if largest <= max_coherence:
            return atoms
        excess = np.sign(cosines) * np.maximum(np.abs(cosines) - target, 0)
        # one atom is pushed by all that are too near: the step shrinks with the most crowded one
        atoms = _normalized(atoms - excess @ atoms / max(1.0, 2 * float(np.abs(excess).sum(axis=1).max())))
    raise UserError(
        f"max_coherence {max_coherence} was not reached for {len(atoms)} atoms in {atoms.shape[1]} dimensions, "
        f"only {largest:.4f}: raise it or d"
    )


def _normalized(atoms: Atoms) -> Atoms:
    normalized: Atoms = atoms / np.linalg.norm(atoms, axis=1, keepdims=True)
    return normalized
