"""Sparse autoencoder with an annealed penalty (Karvonen et al. 2024, "Measuring Progress in Dictionary Learning for
Language Model Interpretability with Board Game Models", arXiv 2408.00113).
"""

from __future__ import annotations

import math

import torch
from jsonargparse.typing import ClosedUnitInterval, NonNegativeFloat, OpenUnitInterval, PositiveFloat, PositiveInt
from torch import Tensor

from lightning_modules.autoencoders.base import Autoencoder
from lightning_modules.autoencoders.inference import Rectifier
from lightning_modules.autoencoders.target_l0 import SparsityCoefficient
from lightning_modules.autoencoders.terms import LossTerm, WholeBatch
from lightning_modules.autoencoders.wiring import Wiring
from lightning_modules.functional import Codes, DenseCodes, sum_over_ranks
from run_store import UserError

EPSILON = 0.01
"""Where a penalty of low p stops becoming steeper. With inputs of mean norm sqrt(d_in) a latent that says something is
around 1; at p = 0.2 one at 0 is pushed 40 times as hard as that, instead of infinitely."""
REMEMBERED = 0.9
"""Of the penalties' sums, after each step: they cover some ten batches."""


class PAnneal(Autoencoder):
    """f = relu((x − b_dec) W_encᵀ + b_enc) with a penalty that comes closer to L0 as training goes on:

        sparsity_coefficient · scale · mean over rows of Σ_i [(f_i ‖W_dec[i]‖ + ε)^p − ε^p],  ε = 0.01

    p is 1 at first, which is L1 exactly, and falls to p_end in `stages` equal steps between the shares `start` and
    `end` of the run. It never rises again, though a run be resumed with more steps. ε bounds the gradient at 0, which
    for p < 1 is infinite without it. At every stage `scale` is multiplied by how much the old penalty was larger than
    the new one is over the last batches, so that the penalty stays level. Low p shrinks large latents less.

    Stage, scale and the penalties over the last batches are buffers. The latter are of a rank's own rows, and DDP hands
    out the first rank's buffers before every forward: that is what all ranks go by.

    The coefficient is meant for a reconstruction term in units of FVU and inputs of mean norm sqrt(d_in) (the default
    normalisation), as the L1 coefficient of `ReLU`; published ones belong to a summed squared error.

    Args:
        d_sae: number of latents.
        sparsity_coefficient: weight of the penalty; more makes codes sparser. With target_l0 it is where the search
            begins.
        target_l0: the mean L0 that is asked for: from 1 on a number of latents, below 1 a share of d_sae. Given, a
            controller moves the weight of the penalty until the L0 is reached.
        p_end: the last p.
        stages: in how many steps p gets there.
        start: share of the run after which p begins to fall.
        end: share of the run after which p is p_end; before the learning rate decays, so that the L0 can settle.
        wiring: what is read and what is reconstructed; one hook point for both by default.
    """

    encodes_by_pre_activations = True

    coefficient: SparsityCoefficient
    stage: Tensor
    scale: Tensor
    recent: Tensor

    def __init__(
        self,
        d_sae: PositiveInt,
        sparsity_coefficient: NonNegativeFloat = 0.01,
        target_l0: PositiveFloat | None = None,
        p_end: OpenUnitInterval = 0.2,
        stages: PositiveInt = 10,
        start: ClosedUnitInterval = 0.2,
        end: ClosedUnitInterval = 0.7,
        wiring: Wiring | None = None,
    ) -> None:
        super().__init__(d_sae, wiring)
        self.coefficient = SparsityCoefficient("sparsity_coefficient", sparsity_coefficient, target_l0, d_sae)
        self.p_end = float(p_end)
        self.stages = stages
        self.start = start
        self.end = end

    def check_settings(self) -> None:
        super().check_settings()
        if self.start >= self.end:
            raise UserError(f"start is {self.start} and end is {self.end}: p falls between them, so end must be later")

    def build_own(self) -> None:
        self.register_buffer("stage", torch.zeros((), dtype=torch.int64))
        self.register_buffer("scale", torch.ones(()))
        self.register_buffer("recent", torch.zeros(2))  # the penalty with the p of this stage and of the next
        self._penalties: Tensor | float = 0.0  # of the step that is being made, over the rows of this rank

    def p(self, stage: Tensor) -> Tensor:
        """The exponent of a stage, scalar; 1 before the first and p_end from the last on."""
        fallen: Tensor = (stage / self.stages).clamp_max(1)
        return fallen * (self.p_end - 1) + 1

    def encode(self, x: Tensor) -> DenseCodes:
        return DenseCodes(self.pre_activations(x).relu())

    def inference(self) -> Rectifier:
        return Rectifier()

    def sparsity_terms(
        self, x: Tensor, y: Tensor, codes: Codes, error: Tensor, dead: Tensor | None, whole: WholeBatch
    ) -> dict[str, LossTerm]:
        values = self.weighed(codes.dense())
        penalty = annealed(values, self.p(self.stage))
        if self.training:
            following = annealed(values.detach(), self.p(self.stage + 1))
            self._penalties = self._penalties + torch.stack([penalty.detach(), following]).to(self.recent)
        weight = self.scale * self.coefficient.weight
        return {"lp": LossTerm(penalty / whole.rows, weight, warms_up=True)}

    @torch.no_grad()
    def observe(self, l0: Tensor, done: float, warmed: float = 1.0) -> None:
        """Begins the next stage when its time has come; one at a time, for its level has to be measured."""
        super().observe(l0, done, warmed)
        passed = (done - self.start) / (self.end - self.start)
        due = self.stage < min(self.stages, int(self.stages * max(0.0, passed) + 1e-6))
        # the ranks share a batch, and the scale must be the same on all of them
        self.recent += sum_over_ranks(torch.zeros_like(self.recent) + self._penalties)
        self._penalties = 0.0
        now, following = self.recent
        level = torch.where(following > 0, now / following, 1)
        self.scale *= torch.where(due, level, 1)
        self.recent *= torch.where(due, 0, REMEMBERED)
        self.stage += due

    def gauges(self) -> dict[str, Tensor]:
        return {"p": self.p(self.stage), "penalty_scale": self.scale, **super().gauges()}


def annealed(values: Tensor, p: Tensor) -> Tensor:
    """Σ [(v + ε)^p − ε^p] over values ≥ 0 of any shape, scalar; p is a scalar. At p = 1 it is their sum."""
    # not as a difference of powers, which is not quite 0 where v is and loses what is small
    return torch.expm1(p * torch.log1p(values / EPSILON)).sum() * (p * math.log(EPSILON)).exp()
