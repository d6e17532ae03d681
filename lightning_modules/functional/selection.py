"""The k largest of each row, exactly.

Shapes: n rows, s values in a row.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_modules.functional.kernels import kernels_run_on

INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}
"""Of as many bytes as a float."""


def largest(z: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Values and indices [n, k] of the k largest of each row of z [n, s], in no particular order. Of values below 0 any
    may be kept; what is not a number counts as largest.

    On a CPU in two steps. A row's values are dealt into groups, of which only those with the k largest maxima can hold
    a value that is to be kept; these k groups are then selected from. Maxima are found at the speed of memory, so what
    has to be selected from is some 2 √(s k) values instead of s.
    """
    if kernels_run_on(z):
        from lightning_modules.functional.kernels import row_selection

        if row_selection.selects(z.shape[1], k):
            return row_selection.largest(z, k)
    size = _group_size(z, k)
    if size > 1:
        maxima = _group_maxima(z, size)
        in_no_group = z[:, size * maxima.shape[1] :]
        if not bool(maxima.isnan().any() | in_no_group.isnan().any()):
            return _of_groups(z, maxima, size, k)
    kept = z.topk(k, dim=-1, sorted=False)
    return kept.values, kept.indices


def largest_numbers(z: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """As `largest`, of values that are numbers; of others some may be missed."""
    size = _group_size(z, k)
    if size < 2:
        return largest(z, k)
    return _of_groups(z, _group_maxima(_keys(z), size), size, k)


def largest_magnitudes(z: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Values, with their sign, and indices [n, k] of the k of each row of z [n, s] that are farthest from 0."""
    indices = largest(z.abs(), k)[1]
    return z.gather(-1, indices), indices


def _of_groups(z: Tensor, maxima: Tensor, size: int, k: int) -> tuple[Tensor, Tensor]:
    """Selects from the k groups with the largest maxima [n, s // size], and from what is in no group."""
    groups = maxima.shape[1]
    best = _keys(maxima).topk(k, dim=1, sorted=False).indices
    candidates = (best[:, None, :] + groups * torch.arange(size)[None, :, None]).flatten(1)
    left_over = torch.arange(size * groups, z.shape[1]).expand(len(z), -1)
    candidates = torch.cat([candidates, left_over], dim=1) if left_over.shape[1] else candidates
    values = z.gather(1, candidates)
    places = _keys(values).topk(k, dim=1, sorted=False).indices
    return values.gather(1, places), candidates.gather(1, places)


def _group_maxima(z: Tensor, size: int) -> Tensor:
    """[n, s // size]: group i has the values i, i + s // size, i + 2 (s // size), …"""
    groups = z.shape[1] // size
    return z[:, : size * groups].view(len(z), size, groups).amax(dim=1)


def _keys(values: Tensor) -> Tensor:
    """Integers, which are faster to compare: floats of 0 and more keep their order as such, those below 0 come last."""
    return values.view(INTEGERS[values.element_size()]) if values.is_floating_point() else values


def _group_size(z: Tensor, k: int) -> int:
    """√(s / k), for which maxima and members that have to be selected from are as many; a GPU does it in one launch."""
    return int((z.shape[1] / k) ** 0.5) if z.device.type == "cpu" else 1
