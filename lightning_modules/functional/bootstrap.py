"""How sure a difference between two models is."""

from __future__ import annotations

from typing import NamedTuple

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
    generator = torch.Generator().manual_seed(seed)
    step = max(1, DRAWN_AT_ONCE // len(values))
    means = [
        values[torch.randint(len(values), (min(step, resamples - done), len(values)), generator=generator)].mean(dim=1)
        for done in range(0, resamples, step)
    ]
    tail = (1 - level) / 2
    low, high = torch.quantile(torch.cat(means), torch.tensor([tail, 1 - tail], dtype=torch.float64)).tolist()
    return BootstrapInterval(float(values.mean()), low, high)
