"""How much of a true dictionary a learned one has found.

Shapes: n true atoms, s learned ones, both of width d.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import normalize


class Matching(NamedTuple):
    """Pairs of a true and a learned atom, one to one; min(n, s) of them, by ascending true atom."""

    true: Tensor
    """int64 [m]."""
    learned: Tensor
    """int64 [m]."""
    cosines: Tensor
    """[m]; below 0 where a signed learned atom points the other way."""


def max_cosines(true: Tensor, learned: Tensor, signed: bool = False) -> Tensor:
    """For each row of `true` [n, d] the cosine of the row of `learned` [s, d] that is most like it: [n].

    Its mean is the mean max cosine similarity (Sharkey et al. 2022); the same learned atom may serve several true ones.
    `signed`: a learned atom stands for its opposite too, so that what counts is |cosine|.
    """
    cosines = normalize(true, dim=1) @ normalize(learned, dim=1).T
    return (cosines.abs() if signed else cosines).max(dim=1).values


def best_matching(true: Tensor, learned: Tensor, signed: bool = False) -> Matching:
    """The one-to-one matching of rows of `true` [n, d] and `learned` [s, d] with the greatest sum of cosines, or of
    their magnitudes where a learned atom stands for its opposite too (`signed`).

    Shortest augmenting paths with potentials (Jonker & Volgenant 1987), O(min(n, s)² · max(n, s)).
    """
    cosines = normalize(true.double(), dim=1) @ normalize(learned.double(), dim=1).T
    alike = cosines.abs() if signed else cosines
    wide = alike if len(true) <= len(learned) else alike.T
    columns = torch.from_numpy(_assign(-wide.cpu().numpy()))
    rows = torch.arange(len(columns))
    if len(true) > len(learned):
        columns, rows = columns.sort().values, rows[columns.argsort()]
        return Matching(columns, rows, cosines.cpu()[columns, rows])
    return Matching(rows, columns, cosines.cpu()[rows, columns])


def _assign(costs: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """The column of every row, such that the costs add up to the least; costs [r, c], r ≤ c."""
    rows, columns = costs.shape
    row_of, column_of = np.full(columns, -1), np.full(rows, -1)
    row_prices, column_prices = np.zeros(rows), np.zeros(columns)
    for start in range(rows):
        # Dijkstra from an unmatched row to an unmatched column, over costs that the prices keep from being negative
        lengths, came_from = np.full(columns, np.inf), np.full(columns, -1)
        unvisited = np.ones(columns, dtype=bool)
        row, length, column = start, 0.0, -1
        while row >= 0:
            through = length + costs[row] - row_prices[row] - column_prices
            shorter = unvisited & (through < lengths)
            lengths[shorter], came_from[shorter] = through[shorter], row
            column = int(np.where(unvisited, lengths, np.inf).argmin())
            length = float(lengths[column])
            unvisited[column] = False
            row = int(row_of[column])
        inner = ~unvisited & (row_of >= 0)
        row_prices[start] += length
        row_prices[row_of[inner]] += length - lengths[inner]
        column_prices[inner] -= length - lengths[inner]
        while column >= 0:  # along the path backwards, every row takes the column that led away from it
            row = int(came_from[column])
            row_of[column] = row
            column_of[row], column = column, int(column_of[row])
    return column_of
