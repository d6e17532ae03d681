"""Which features fire: independent, correlated or only with a parent, each at exactly its own rate.

Shapes: b rows, n features.
"""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from run_store import UserError

HIGHEST_RATE = 0.5
"""The power law is cut off here: what fires more often than not is a bias rather than a feature."""

_COIN = 1 << 32


def power_law(count: int, exponent: float, mean_l0: float) -> npt.NDArray[np.float64]:
    """Rates p_i = min(c · i^(−exponent), 1/2) for i = 1 … count, with c such that they add up to `mean_l0`.

    Returns:
        float64 [count], falling.

    Raises:
        UserError: even at the highest rate the features do not add up to mean_l0.
    """
    if mean_l0 > HIGHEST_RATE * count:
        raise UserError(
            f"mean_l0 {mean_l0} is more than {count} features give that fire at most every other time: lower it or "
            "raise features.count"
        )
    weights = np.arange(1, count + 1, dtype=np.float64) ** -exponent
    # The k most frequent stand at the limit and share out what is left in proportion: the least k for which it fits.
    tails = np.cumsum(weights[::-1])[::-1]
    scales = (mean_l0 - HIGHEST_RATE * np.arange(count)) / tails
    fits = np.flatnonzero(scales * weights <= HIGHEST_RATE)
    cut = int(fits[0]) if len(fits) else count - 1
    rates = scales[cut] * weights
    rates[:cut] = HIGHEST_RATE
    limited: npt.NDArray[np.float64] = np.minimum(rates, HIGHEST_RATE)
    return limited


class FiringModel:
    """Draws which features fire.

    A feature without ties fires when a coin of its own says so. The features of a group share a Gaussian s: feature i
    fires where sqrt(ρ) s + sqrt(1 − ρ) e_i < Φ⁻¹(p_i), which it does with probability p_i whatever ρ is. A child fires
    where its parent does and its own coin, of rate p_child / p_parent, says so: p_child in all.

    Args:
        probabilities: float64 [n], each feature's rate.
        parents: int64 [n], number of the parent, smaller than the child's, or -1.
        groups: int64 [n], number of the correlated group, or -1; nobody in a group is a parent or a child.
        correlation: ρ, 0 to 1.
    """

    def __init__(
        self,
        probabilities: npt.NDArray[np.float64],
        parents: npt.NDArray[np.int64],
        groups: npt.NDArray[np.int64],
        correlation: float,
    ) -> None:
        self.count = len(probabilities)
        rates = np.where(parents >= 0, probabilities / probabilities[parents], probabilities)
        # A coin is 32 bits and fires up to here; a rate of 1 is the highest of them.
        self._highest = (np.maximum(np.rint(rates * _COIN), 1) - 1).astype(np.uint32)
        self._parents = parents
        self._generations = _generations(parents)
        self._grouped = np.flatnonzero(groups >= 0)
        self._group_of = groups[self._grouped]
        self._groups = int(groups.max(initial=-1)) + 1
        self._thresholds = np.array([NormalDist().inv_cdf(p) for p in probabilities[self._grouped]])
        self._shared, self._own = correlation**0.5, (1 - correlation) ** 0.5

    def draw(self, rows: int, generator: np.random.Generator) -> npt.NDArray[np.bool_]:
        """bool [rows, n]."""
        coins = generator.integers(0, _COIN, size=(rows, self.count), dtype=np.uint32)
        fires: npt.NDArray[np.bool_] = coins <= self._highest
        if len(self._grouped):
            shared = generator.standard_normal((rows, self._groups))[:, self._group_of]
            own = generator.standard_normal(shared.shape)
            fires[:, self._grouped] = self._shared * shared + self._own * own < self._thresholds
        for children in self._generations:
            fires[:, children] &= fires[:, self._parents[children]]
        return fires


def _generations(parents: npt.NDArray[np.int64]) -> list[npt.NDArray[np.int64]]:
    """The children, their children and so on, so that every parent is decided before its children."""
    generations: list[npt.NDArray[np.int64]] = []
    of_level = parents < 0
    while not of_level.all():
        reached = of_level | ((parents >= 0) & of_level[parents])
        generations.append(np.flatnonzero(reached & ~of_level))
        of_level = reached
    return generations
