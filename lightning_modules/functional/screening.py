"""The largest pre-activations of rows, found by a product in bfloat16.

Shapes: b rows of a batch, s latents, d width of the activations, c > k candidates a row.

Rounding x and W to bfloat16 makes the encoder's product several times as fast and moves a pre-activation by little. So
the c largest of the rounded product are candidates, the exact values of these are computed in the weights' own dtype,
and the k largest of those are kept. What is kept has its exact value. A value that is among the k largest is missed
where rounding moves it below all candidates; what is kept instead then differs from it by less than rounding does.

Rows are centred on the batch's mean before they are rounded: what they have in common, which may be a hundred times
what they differ by, goes into the bias.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lightning_modules.functional.kernels import compiled_kernels_run_on, native
from lightning_modules.functional.selection import largest, largest_numbers
from lightning_modules.functional.sparse import gathered_dot


class Screen(NamedTuple):
    """An encoder, rounded, for the rows of a batch."""

    center: Tensor
    """[d]."""
    weight: Tensor
    """[s, d] bfloat16."""
    bias: Tensor
    """[s] of centred rows."""

    @classmethod
    def of(cls, x: Tensor, weight: Tensor, bias: Tensor) -> Screen | None:
        """Of a batch x [b, d], a weight [s, d] and a bias [s]. None on a CPU where one of them has a value that is not
        finite, which rounding would hide.
        """
        center = x.mean(dim=0)
        shifted = torch.addmv(bias, weight, center.to(weight))
        if x.device.type == "cpu" and not bool(weight.sum().isfinite() & shifted.sum().isfinite()):
            return None
        return cls(center, weight.bfloat16(), shifted)

    def product(self, x: Tensor) -> Tensor:
        """Rounded, without the bias: [b, s] bfloat16."""
        if compiled_kernels_run_on(x, self.center):
            centred = native.rounded(x, self.center)
        else:
            centred = torch.sub(x, self.center, out=torch.empty_like(x, dtype=torch.bfloat16))
        return torch.mm(centred, self.weight.t())

    def coarse(self, x: Tensor) -> Tensor:
        """x Wᵀ + bias, rounded: [b, s] bfloat16."""
        # not `linear`, which first fills the result with copies of the bias
        return self.product(x).add_(self.bias.bfloat16())


def candidates_for(k: int, latents: int) -> int:
    """c, a quarter more than k and at least 8."""
    return min(latents, k + max(8, k // 4))


def screened_largest(x: Tensor, weight: Tensor, bias: Tensor, screen: Screen, k: int) -> tuple[Tensor, Tensor]:
    """Values and indices [b, k] of the k largest of x Wᵀ + bias in each row, in no particular order; of values below 0
    any may be kept.

    Args:
        x: [b, d].
        weight: [s, d].
        bias: [s].
        screen: of them.
        k: how many to keep, ≤ s.
    """
    count = candidates_for(k, len(weight))
    if compiled_kernels_run_on(x, weight, bias):
        return native.screened(screen.product(x), screen.bias, x, weight, bias, count, k)
    candidates = largest_numbers(screen.coarse(x), count)[1]
    values, places = largest(gathered_dot(x, weight, candidates) + bias[candidates], k)
    return values, candidates.gather(1, places)
