"""How sure a difference between two models is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple

import torch
from jsonargparse.typing import OpenUnitInterval, PositiveInt
from torch import Tensor

DRAWN_AT_ONCE = 2**22


class BootstrapInterval(NamedTuple):
    """A mean and between what it lies."""

    mean: float
    low: float
    high: float


def paired_bootstrap(
    differences: Tensor, seed: int, resamples: PositiveInt = 10_000, level: OpenUnitInterval = 0.95
) -> BootstrapInterval:
    """The mean difference and its percentile interval (Efron 1979) under drawing the queries again.

    Args:
        differences: [n] of two models' scores on the same queries; nan, of a query that has no score, does not count.
        seed: of the draws.
        resamples: how often n queries are drawn.
        level: share of the draws whose mean lies in the interval.

    Returns:
        nan where there is no difference to draw from.
    """
    values = differences.detach().double().cpu()
    values = values[~values.isnan()]
    if not len(values):
        return BootstrapInterval(torch.nan, torch.nan, torch.nan)
    means = [values[drawn].mean(dim=1) for drawn in _draws(len(values), seed, resamples)]
    return _interval(float(values.mean()), torch.cat(means), level)


def paired_ratio(
    parts: Tensor, wholes: Tensor, seed: int, resamples: PositiveInt = 10_000, level: OpenUnitInterval = 0.95
) -> BootstrapInterval:
    """What share the parts are of the wholes, Σ parts / Σ wholes, with its percentile interval as of
    `paired_bootstrap`. Where the sum of the wholes may be 0 the interval is wide or infinite, and means nothing.

    Args:
        parts: [n] of each query; nan, of a query that has no score, does not count.
        wholes: [n] of the same queries.
        seed: of the draws; the same one draws the same queries.
        resamples: how often n queries are drawn.
        level: share of the draws whose ratio lies in the interval.
    """
    values = torch.stack([parts, wholes]).detach().double().cpu()
    values = values[:, ~values.isnan().any(dim=0)]
    if not values.shape[1]:
        return BootstrapInterval(torch.nan, torch.nan, torch.nan)
    ratios = []
    for drawn in _draws(values.shape[1], seed, resamples):
        part, whole = values[:, drawn].sum(dim=2)
        ratios.append(part / whole)
    part, whole = values.sum(dim=1)
    # draws in which both sums are 0 say nothing; halfway to the infinite is no number
    finite = torch.cat(ratios).nan_to_num(0.0, torch.inf, -torch.inf)
    return _interval(float(part / whole), finite, level, "nearest")


def _draws(n: int, seed: int, resamples: int) -> Iterator[Tensor]:
    """int64 [r, n] queries that are drawn, some draws at a time."""
    generator = torch.Generator().manual_seed(seed)
    step = max(1, DRAWN_AT_ONCE // n)
    for done in range(0, resamples, step):
        yield torch.randint(n, (min(step, resamples - done), n), generator=generator)


def _interval(
    middle: float, drawn: Tensor, level: float, between: Literal["linear", "nearest"] = "linear"
) -> BootstrapInterval:
    tail = (1 - level) / 2
    ends = torch.quantile(drawn, torch.tensor([tail, 1 - tail], dtype=torch.float64), interpolation=between)
    return BootstrapInterval(middle, *ends.tolist())
