"""Transcoder (Dunefsky, Chlenski & Nanda 2024, "Transcoders Find Interpretable LLM Feature Circuits",
arXiv 2406.11944), with or without a skip (Paulo, Shabalin & Belrose 2025, "Transcoders Beat Sparse Autoencoders for
Interpretability", arXiv 2501.18823).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_modules.autoencoders.wiring import Sides, Wiring, random_unit_rows
from run_store import UserError


class Transcoder(Wiring):
    """ŷ = f(x) W_dec + b_dec, or with a skip ŷ = f(x) W_dec + b_dec + x W_skip: x is what enters a block of the model
    and y what leaves it, so the latents say what the block computes and not what passes through.

    The data's first hook point is x and the second y, each normalised by itself. At the start rows of W_enc are random
    unit vectors, W_dec and W_skip are 0, and b_dec is the middle of y: the first reconstruction is the mean. So the
    first step moves W_dec, W_skip and b_dec alone, the encoder from the second on. Rows of W_dec keep whatever length
    they take; penalties on latents count f_i ‖W_dec,i‖.

    Where autoencoders centre x by b_dec, which lies on the other side here, the encoder reads x − x̄, x̄ the middle of
    the data as a buffer. b_enc can express the same, but would have to learn it.

    Args:
        skip: whether to learn W_skip.
    """

    unit_norm = False
    same_space = False
    centered_on_b_dec = False

    def __init__(self, skip: bool = False) -> None:
        super().__init__()
        self.affine = skip

    def sides(self, hook_points: Sequence[str]) -> Sides:
        if len(hook_points) != 2:
            raise UserError(
                f"a transcoder reads one hook point and reconstructs another, and the data gives {len(hook_points)} "
                f"({', '.join(hook_points)}): set data.hook_points to two names, the input and then the output"
            )
        return Sides((0,), (1,))

    def start(self, d_sae: int, held: range | None = None) -> tuple[Tensor, Tensor]:
        W_enc = random_unit_rows(d_sae, sum(self.inputs), held)
        return W_enc, torch.zeros(len(W_enc), sum(self.outputs))
