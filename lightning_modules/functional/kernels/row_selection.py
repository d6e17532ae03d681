"""The k largest of every row, exactly, as kernels.

Shapes: b rows, s pre-activations each, k kept.

Floats are compared as integers that ascend with them, so the k-th largest is found bit by bit: of the numbers that
start with the bits found so far and a 1, are there k or more? A row that fits into a program's registers is asked so
at no cost in memory traffic. A longer one is looked at in strides first: place j belongs to group j mod GROUPS, and
the k-th largest of the groups' maxima is exceeded in fewer than k groups, so all that exceeds it, and the first k that
equal it, are at most k·(s / GROUPS + 1) candidates, however the row is made. They hold the k largest, and are selected
from as a short row is. A row is read once or twice; nothing is sorted.

Of equal values those of lower places are kept; NaN counts as the largest, as in `torch.topk`.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from lightning_modules.functional.kernels.availability import on_device_of
from lightning_modules.functional.kernels.ordering import ordered_keys, threshold_of_largest

GROUPS = 8192
"""Also the longest row that is selected from at once: twice as many spill out of a program's registers."""

MOST_CANDIDATES = 32768
KEYS_A_THREAD = 16


def selects(row_length: int, k: int) -> bool:
    """Whether kernels can keep k of a row; if not, k is so large that hardly anything is left out."""
    return row_length <= GROUPS or (k <= GROUPS and _most_candidates(row_length, k) <= MOST_CANDIDATES)


def largest(z: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Values and indices [b, k] int64 of the k largest of each row of z [b, s], by ascending index."""
    z = z.contiguous()
    rows, length = z.shape
    values, indices = z.new_empty(rows, k), torch.empty(rows, k, dtype=torch.int64, device=z.device)
    places = None
    with on_device_of(z):
        if length > GROUPS:
            places = _candidates(z, k)
        size = triton.next_power_of_2(length if places is None else places.shape[1])
        _select_kernel[(rows,)](
            values,
            indices,
            z,
            places,
            length,
            length if places is None else places.shape[1],
            k,
            SIZE=size,
            BITS=8 * z.element_size(),
            num_warps=_warps(size),
        )
    return values, indices


def _candidates(z: Tensor, k: int) -> Tensor:
    """[b, n] int32 places of each row of z that hold its k largest, ascending and filled up with -1."""
    places = torch.full((len(z), _most_candidates(z.shape[1], k)), -1, dtype=torch.int32, device=z.device)
    _candidates_kernel[(len(z),)](
        places,
        z,
        z.shape[1],
        places.shape[1],
        k,
        GROUPS=GROUPS,
        BITS=8 * z.element_size(),
        num_warps=_warps(GROUPS),
    )
    return places


def _most_candidates(row_length: int, k: int) -> int:
    return k * (-(-row_length // GROUPS) + 1)


def _warps(keys: int) -> int:
    return max(1, min(32, keys // (32 * KEYS_A_THREAD)))


@triton.jit
def _select_kernel(
    values: tl.tensor,
    indices: tl.tensor,
    z: tl.tensor,
    places: tl.tensor,
    row_length: int,
    candidates: int,
    k: int,
    SIZE: tl.constexpr,
    BITS: tl.constexpr,
) -> None:
    """One program a row: selects from the places named, or from all."""
    row = tl.program_id(0).to(tl.int64)
    slot = tl.arange(0, SIZE)
    real = slot < candidates
    place = slot
    if places is not None:
        place = tl.load(places + row * candidates + slot, mask=real, other=-1)
        real = place >= 0
    value = tl.load(z + row * row_length + place, mask=real, other=0)
    keys = ordered_keys(value, real, BITS)
    threshold = threshold_of_largest(keys, k, BITS)
    above = keys > threshold
    equal = keys == threshold
    left = k - tl.sum(above.to(tl.int32), axis=0)
    kept = above | (equal & (tl.cumsum(equal.to(tl.int32), axis=0) <= left))
    target = row * k + tl.cumsum(kept.to(tl.int32), axis=0) - 1
    # read again, few as they are, rather than kept in registers meanwhile
    if places is not None:
        place = tl.load(places + row * candidates + slot, mask=kept, other=0)
    value = tl.load(z + row * row_length + place, mask=kept, other=0)
    tl.store(values + target, value, mask=kept)
    tl.store(indices + target, place.to(tl.int64), mask=kept)


@triton.jit
def _candidates_kernel(
    places: tl.tensor,
    z: tl.tensor,
    row_length: int,
    most: int,
    k: int,
    GROUPS: tl.constexpr,
    BITS: tl.constexpr,
) -> None:
    row = tl.program_id(0).to(tl.int64)
    group = tl.arange(0, GROUPS)
    value = tl.load(z + row * row_length + group, mask=group < row_length, other=0)
    maxima = ordered_keys(value, group < row_length, BITS)
    for first in range(GROUPS, row_length, GROUPS):
        real = first + group < row_length
        value = tl.load(z + row * row_length + first + group, mask=real, other=0)
        maxima = tl.maximum(maxima, ordered_keys(value, real, BITS))
    threshold = threshold_of_largest(maxima, k, BITS)
    found = 0
    equal_found = 0
    for first in range(0, row_length, GROUPS):
        real = first + group < row_length
        value = tl.load(z + row * row_length + first + group, mask=real, other=0)
        keys = ordered_keys(value, real, BITS)
        equal = (keys == threshold) & real
        kept = (keys > threshold) | (equal & (equal_found + tl.cumsum(equal.to(tl.int32), axis=0) <= k))
        target = found + tl.cumsum(kept.to(tl.int32), axis=0) - 1
        tl.store(places + row * most + target, first + group, mask=kept)
        found += tl.sum(kept.to(tl.int32), axis=0)
        equal_found += tl.sum(equal.to(tl.int32), axis=0)
