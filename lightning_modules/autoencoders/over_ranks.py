"""What the loss terms of a batch divide by, where several ranks share the batch."""

from __future__ import annotations

from functools import reduce

import torch
from torch import Tensor

from lightning_modules.autoencoders.terms import WholeBatch
from lightning_modules.functional import Spread, gather_equal


def whole_of_ranks(own: WholeBatch) -> WholeBatch:
    """What an average rank would have measured: of each sum over the rows of all ranks the mean over ranks.

    With Σ_r the sum over a rank's rows and V what is measured of the rows of all R ranks, a term becomes Σ_r / (V / R).
    Its mean over the ranks is that of the whole batch, Σ / V, and so is the mean of its gradients, which DDP takes. A
    mean of Σ_r / V_r would be neither, and would depend on how the rows happen to be divided.

    All ranks must ask, each of as many rows; a few numbers are exchanged, and d_out more where there is a `Spread`.

    Args:
        own: what this rank has measured.
    """
    sums = torch.stack([part.double() for part in _sums(own)])
    means: list[Tensor] = []
    if own.error is not None:
        means = [own.error.mean.double()]
    every = gather_equal(torch.cat([sums, *means]))
    averages = [average.to(own.variance.dtype) for average in every[:, : len(sums)].mean(dim=0)]
    variance, unit, *others = averages
    fired = None if own.fired is None else others.pop(0)
    return WholeBatch(own.rows, variance, unit, _spread(own.error, every, len(sums)), fired)


def _sums(own: WholeBatch) -> list[Tensor]:
    """Scalars that are sums over rows; that of the spread comes last."""
    fired = [] if own.fired is None else [own.fired]
    return [own.variance, own.unit, *fired, *([] if own.error is None else [own.error.squares])]


def _spread(own: Spread | None, every: Tensor, sums: int) -> Spread | None:
    if own is None:
        return None
    of_all = reduce(Spread.merged, (Spread(own.rows, rank[sums:], rank[sums - 1]) for rank in every))
    squares = (of_all.squares / len(every)).to(own.squares.dtype)
    return Spread(own.rows, of_all.mean.to(own.mean.dtype), squares)
