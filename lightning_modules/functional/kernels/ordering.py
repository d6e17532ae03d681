"""Floats as integers that ascend with them, and the k-th largest of those, inside a kernel."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def ordered_keys(value: tl.tensor, real: tl.tensor, BITS: tl.constexpr) -> tl.tensor:
    """Integers, int64 where values have 64 bits and int32 otherwise, in the order of the values [n]: equal for
    both zeros, largest for NaN, less than any value's where not `real`.
    """
    LEAST: tl.constexpr = -(2 ** (BITS - 1))
    MOST: tl.constexpr = 2 ** (BITS - 1) - 1
    # Triton's interpreter compares 16-bit floats as if they were integers
    number = value.to(tl.float32) if BITS == 16 else value
    if BITS == 64:
        bits = value.to(tl.int64, bitcast=True)
    elif BITS == 32:
        bits = value.to(tl.int32, bitcast=True)
    else:
        bits = value.to(tl.int16, bitcast=True).to(tl.int32)
    # below zero a float's other bits ascend with its magnitude: turned round, they descend
    keys = tl.where(bits < 0, bits ^ MOST, bits)
    keys = tl.where(number == 0, 0, keys)
    keys = tl.where(number != number, MOST, keys)
    return tl.where(real, keys, LEAST)


@triton.jit
def threshold_of_largest(keys: tl.tensor, k: int, BITS: tl.constexpr) -> tl.tensor:
    """A number that at least k of the keys [n] reach and fewer than k exceed; or, as soon as it is found, one that
    exactly k reach. n ≥ k.
    """
    positive = tl.sum((keys >= 0).to(tl.int32), axis=0)
    threshold = tl.where(positive >= k, 0, -(2 ** (BITS - 1))).to(keys.dtype)
    reached = tl.where(positive >= k, positive, keys.numel)
    bit = BITS - 2
    while (bit >= 0) & (reached != k):
        trial = threshold + (tl.full([], 1, keys.dtype) << bit)
        count = tl.sum((keys >= trial).to(tl.int32), axis=0)
        threshold = tl.where(count >= k, trial, threshold)
        reached = tl.where(count >= k, count, reached)
        bit -= 1
    return threshold
