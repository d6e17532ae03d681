"""Autoencoders that get a part of x for free."""

from __future__ import annotations

from collections.abc import Sequence

from jsonargparse.typing import ClosedUnitInterval
from torch import Tensor

from lightning_modules.autoencoders.wiring import Sides, Wiring, only_hook_point
from run_store import UserError


class Skip(Wiring):
    """x̂ = s x + x W_skip + f W_dec + b_dec, with a fixed scale s and, if asked for, a learnt W_skip that starts at 0:
    what passes by the latents need not be said in them.

    A skip that can become the identity makes autoencoding trivial. So s is fixed, for a learnt one would go to 1; and
    W_skip goes to the identity unless training is short or decay holds it back, leaving the latents nothing to say.
    `val/fvu_without_latents` is the FVU of the skip and b_dec alone: the latents are worth what val/fvu is below it.

    The encoder reads x − x̄, x̄ the middle of the data as a buffer, because b_dec starts at (1 − s) x̄.

    Args:
        scale: s, at least 0 and below 1.
        affine: whether to learn W_skip.
    """

    centered_on_b_dec = False

    def __init__(self, scale: ClosedUnitInterval = 0.5, affine: bool = False) -> None:
        super().__init__()
        self.scale = float(scale)
        self.affine = affine

    def sides(self, hook_points: Sequence[str]) -> Sides:
        return only_hook_point(hook_points)

    def build(self, inputs: Sequence[int], outputs: Sequence[int]) -> None:
        if not 0 <= self.scale < 1:
            raise UserError(
                f"model.autoencoder.wiring.scale is {self.scale}: at 1 the skip reconstructs x without any latent; set "
                "it to at least 0 and below 1"
            )
        super().build(inputs, outputs)

    def start_from_data(self, center_of_x: Tensor, center_of_y: Tensor) -> Tensor:
        return (1 - self.scale) * super().start_from_data(center_of_x, center_of_y)

    def skip(self, x: Tensor) -> Tensor:
        learnt = super().skip(x)
        return self.scale * x if learnt is None else self.scale * x + learnt
