"""The largest pre-activations of rows by a product in bfloat16, exactly.

Shapes: b rows of a batch, s latents, d width of the activations, c > k candidates a row.

Rounding x and W to bfloat16 makes the encoder's product several times as fast and moves a pre-activation by little. So
the c largest of the rounded product are candidates, the exact values of these are computed in the weights' own dtype,
and the k largest of those are kept. A value that was no candidate exceeds the last candidate by less than the rounding
error; where that might be enough for it to be among the k largest, the row is done again without rounding.

With u = 2⁻⁸, the largest relative error of rounding to bfloat16, each of the d products of a pre-activation is off by
at most 2u of itself, independently of the others. `DEVIATIONS` standard deviations of their sum are at most

    DEVIATIONS · u · sqrt(2/3 · Σ_j x_j² max_i W[i, j]²)

and the rounding of bias and result adds u times their magnitudes.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lightning_modules.functional.selection import largest, largest_numbers
from lightning_modules.functional.sparse import gathered_dot

ROUNDING = 2.0**-8
"""u."""

DEVIATIONS = 6.0
"""One value in 10⁹ is off by more; a batch of 4096 rows has 10⁷, and few of them are near the last one that is kept."""


class Screen(NamedTuple):
    """An encoder, rounded."""

    weight: Tensor
    """[s, d] bfloat16."""
    bias: Tensor
    """[s] bfloat16."""
    squares: Tensor
    """[d] the largest square of each column of the exact weight."""
    largest_bias: Tensor
    """Scalar, its magnitude."""

    @classmethod
    def of(cls, weight: Tensor, bias: Tensor) -> Screen:
        """Of an encoder's weight [s, d] and bias [s]."""
        squares = torch.maximum(weight.amax(dim=0), -weight.amin(dim=0)).square()
        return cls(weight.bfloat16(), bias.bfloat16(), squares, bias.abs().amax())

    def coarse(self, x: Tensor) -> Tensor:
        """x Wᵀ + bias, rounded: [b, s] bfloat16."""
        return torch.nn.functional.linear(x.bfloat16(), self.weight, self.bias)

    def missed(self, x: Tensor) -> Tensor:
        """[b] by how much values of a row may be off, beside what rounding a result takes from it."""
        products = DEVIATIONS * ROUNDING * (2 / 3 * (x.square() @ self.squares)).sqrt()
        return products + ROUNDING * self.largest_bias


def candidates_for(k: int, latents: int) -> int:
    """c: half as many again, which leaves about a row in a hundred to be done again."""
    return min(latents, k + max(8, k // 2))


def screened_largest(x: Tensor, weight: Tensor, bias: Tensor, screen: Screen, k: int) -> tuple[Tensor, Tensor]:
    """Values and indices [b, k] of the k largest of x Wᵀ + bias in each row, in no particular order; of values below 0
    any may be kept.

    To know whether a row must be done again a GPU would have to be waited for. There none is, and a value that lies
    within the rounding error of the k-th largest may be kept instead of it.

    Args:
        x: [b, d].
        weight: [s, d].
        bias: [s].
        screen: of weight and bias.
        k: how many to keep, ≤ s.
    """
    count = candidates_for(k, len(weight))
    coarse, candidates = largest_numbers(screen.coarse(x), count)
    values, places = largest(gathered_dot(x, weight, candidates) + bias[candidates], k)
    indices = candidates.gather(1, places)
    if count < len(weight) and x.device.type == "cpu":
        # where a candidate is below 0, every value above 0 is a candidate
        cut = coarse.amin(dim=1).to(values.dtype).clamp_min_(0)
        above = cut * (1 + ROUNDING) + screen.missed(x)
        # not the other way round, so that a row with a value that is not a number is done again
        again = (above <= values.amin(dim=1).clamp_min(0)).logical_not_().nonzero().squeeze(1)
        if len(again):
            values[again], indices[again] = largest(torch.nn.functional.linear(x[again], weight, bias), k)
    return values, indices
