"""Which features depend on each other: groups that fire together, and trees in which a child needs its parent.

A feature is in at most one group or one tree, never in both: then the coin that a child tosses is independent of its
parent's, and every feature keeps exactly the rate that the power law gives it.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from jsonargparse.typing import ClosedUnitInterval, PositiveInt

from run_store import UserError

Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class CorrelatedGroups:
    """Features that fire together more often than chance has it.

    Args:
        groups: How many groups there are.
        size: Features in a group.
        correlation: Of the Gaussians behind the firing of two features of a group, 0 to 1 (a Gaussian copula).
    """

    groups: PositiveInt
    size: PositiveInt = 2
    correlation: ClosedUnitInterval = 0.8


@dataclass(frozen=True)
class Forest:
    """Trees of features: a child fires only where its parent does.

    Args:
        trees: How many roots there are.
        branching: Children of each feature that has any.
        depth: Generations below a root.
    """

    trees: PositiveInt
    branching: PositiveInt = 2
    depth: PositiveInt = 1

    @property
    def levels(self) -> list[int]:
        """Features of each generation, over all trees."""
        return [self.trees * self.branching**level for level in range(self.depth + 1)]


class Structure(NamedTuple):
    """Who depends on whom."""

    parents: Numbers
    """int64 [n]: number of each feature's parent, always a smaller one; -1 for none."""
    groups: Numbers
    """int64 [n]: number of each feature's correlated group; -1 for none."""


def make_structure(
    count: int, correlation: CorrelatedGroups | None, hierarchy: Forest | None, generator: np.random.Generator
) -> Structure:
    """Draws which features are in trees and which in groups, all frequencies alike.

    Features are numbered by falling rate, and a tree's generations take the numbers that it was dealt in order: a
    parent is then never rarer than its children, without which their rates could not be kept.

    Args:
        count: features in all.
        correlation: None for no groups.
        hierarchy: None for no trees.
        generator: draws them.

    Raises:
        UserError: there are fewer features than the groups and trees need.
    """
    in_trees = sum(hierarchy.levels) if hierarchy else 0
    in_groups = correlation.groups * correlation.size if correlation else 0
    if in_trees + in_groups > count:
        raise UserError(
            f"hierarchy takes {in_trees} features and correlation {in_groups}, and features.count is {count}: raise it "
            "or make them smaller"
        )
    dealt = generator.permutation(count)
    parents, groups = np.full(count, -1), np.full(count, -1)
    if hierarchy:
        _plant(parents, np.sort(dealt[:in_trees]), hierarchy)
    if correlation:
        groups[dealt[in_trees : in_trees + in_groups]] = np.repeat(np.arange(correlation.groups), correlation.size)
    return Structure(parents, groups)


def _plant(parents: Numbers, members: Numbers, hierarchy: Forest) -> None:
    """Writes the members' parents, generation after generation."""
    generations = np.split(members, np.cumsum(hierarchy.levels)[:-1])
    for older, younger in pairwise(generations):
        parents[younger] = np.repeat(older, hierarchy.branching)
