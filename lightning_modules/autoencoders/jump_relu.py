"""JumpReLU sparse autoencoder (Rajamanoharan et al. 2024, "Jumping Ahead: Improving Reconstruction Fidelity with
JumpReLU Sparse Autoencoders", arXiv 2407.14435; the tanh penalty and the loss on dead latents after Anthropic's update
of January 2025).
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from jsonargparse.typing import NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from lightning_modules.autoencoders.base import Autoencoder
from lightning_modules.autoencoders.inference import Thresholds
from lightning_modules.autoencoders.target_l0 import SparsityCoefficient, check_target, target_count
from lightning_modules.autoencoders.terms import LossTerm, WholeBatch
from lightning_modules.autoencoders.wiring import Wiring
from lightning_modules.functional import Codes, DenseCodes
from run_store import UserError

NUDGE = 0.02
"""By how much thresholds fall in a step for each log(goal / L0) beyond SLACK, and half of that at most."""
SLACK = 0.05
"""A gap that the penalty's weight closes by itself."""


class JumpReLU(Autoencoder):
    """f = z · 1[z > θ], z = (x − b_dec) W_encᵀ + b_enc, with a threshold θ_i ≥ 0 learnt for each latent.

    The penalty is one of these, as a mean over rows:

        l0:      l0_coefficient · L0,  L0 = Σ_i 1[z_i > θ_i]
        tanh:    l0_coefficient · Σ_i tanh(tanh_scale · f_i ‖W_dec[i]‖)
        target:  target_l0_coefficient · (mean L0 / target_l0 − 1)²

    A jump has no useful gradient, so that of θ is estimated with a rectangle of width ε = bandwidth around it:
    ∂f/∂θ = −(θ/ε) · 1[|z − θ| < ε/2] and ∂1[z > θ]/∂θ = −(1/ε) · 1[|z − θ| < ε/2]. z has the gradient of the values
    that fire and no other: l0 and target reach θ alone.

    Where a controller steers l0 or tanh, all thresholds fall together by 0.02 · (log(goal / L0) − 0.05) after a step in
    which the L0 is more than 5% below its goal. Through the penalty alone it would hardly come back: a weight of 0
    pushes no threshold up but pulls none down, and only what lies within ε of a threshold moves it.

    Dead latents, which neither of these reaches, are drawn back by pre_act_coefficient ·
    Σ_dead relu(θ_i − z_i) ‖W_dec[i]‖.

    θ is a parameter by itself, clamped to ≥ 0 after a step; under Adam its logarithm would move small thresholds too
    slowly. Widths and coefficients are meant for inputs of mean norm sqrt(d_in) (the default normalisation) and a
    reconstruction term in units of FVU.

    Args:
        d_sae: number of latents.
        l0_coefficient: weight of the penalties l0 and tanh; more makes codes sparser. With target_l0 it is where the
            search begins.
        penalty: what is counted: a latent that fires (l0), how high it is (tanh), or by how much the mean L0 misses
            target_l0 (target).
        target_l0: the mean L0 that is asked for: from 1 on a number of latents, below 1 a share of d_sae. Given, a
            controller moves the weight of l0 or tanh until it is reached.
        target_l0_coefficient: weight of the penalty target.
        tanh_scale: how soon tanh saturates.
        init_threshold: θ at the start.
        bandwidth: ε, the rectangle's width.
        pre_act_coefficient: weight of the loss on dead latents; 0 leaves it out.
        wiring: what is read and what is reconstructed; one hook point for both by default.
    """

    encodes_by_pre_activations = True

    coefficient: SparsityCoefficient
    threshold: nn.Parameter

    def __init__(
        self,
        d_sae: PositiveInt,
        l0_coefficient: NonNegativeFloat = 1e-3,
        penalty: Literal["l0", "tanh", "target"] = "l0",
        target_l0: PositiveFloat | None = None,
        target_l0_coefficient: NonNegativeFloat = 1.0,
        tanh_scale: PositiveFloat = 4.0,
        init_threshold: NonNegativeFloat = 0.1,
        bandwidth: PositiveFloat = 0.05,
        pre_act_coefficient: NonNegativeFloat = 3e-6,
        wiring: Wiring | None = None,
    ) -> None:
        super().__init__(d_sae, wiring)
        steered_to = None if penalty == "target" else target_l0
        self.coefficient = SparsityCoefficient("l0_coefficient", l0_coefficient, steered_to, d_sae)
        self.penalty = penalty
        self.target_l0 = target_l0
        self.target_l0_coefficient = target_l0_coefficient
        self.tanh_scale = tanh_scale
        self.init_threshold = init_threshold
        self.bandwidth = bandwidth
        self.pre_act_coefficient = pre_act_coefficient

    def check_settings(self) -> None:
        super().check_settings()
        check_target(self.target_l0, self.d_sae)
        if self.penalty == "target" and self.target_l0 is None:
            raise UserError("penalty is target and target_l0 is not given: set it to the L0 that is asked for")

    def build_own(self) -> None:
        self.threshold = nn.Parameter(torch.full((self.d_sae,), float(self.init_threshold)))

    def encode(self, x: Tensor) -> DenseCodes:
        z = self.pre_activations(x)
        values: Tensor = _Jump.apply(z, self.threshold, self.bandwidth)  # type: ignore[no-untyped-call]
        return DenseCodes(values, z if torch.is_grad_enabled() else None)

    def inference(self) -> Thresholds:
        return Thresholds(self.threshold)

    @torch.no_grad()
    def measure(
        self,
        x: Tensor,
        dead: Tensor | None = None,
        error: Tensor | None = None,
        y: Tensor | None = None,
        codes: Codes | None = None,
    ) -> WholeBatch:
        whole = super().measure(x, dead, error, y, codes)
        if self.penalty != "target":
            return whole
        codes = self.encode(x) if codes is None else codes
        return whole._replace(fired=(codes.values > 0).sum())

    def sparsity_terms(
        self, x: Tensor, y: Tensor, codes: Codes, error: Tensor, dead: Tensor | None, whole: WholeBatch
    ) -> dict[str, LossTerm]:
        terms = self._penalty(codes, whole)
        if self.pre_act_coefficient != 0:
            value = x.new_zeros(()) if dead is None else self.pre_act_loss(x, dead, whole.rows)
            terms["pre_act"] = LossTerm(value, self.pre_act_coefficient)
        return terms

    def _penalty(self, codes: Codes, whole: WholeBatch) -> dict[str, LossTerm]:
        if self.penalty == "tanh":
            value = torch.tanh(self.tanh_scale * self.weighed(codes.values)).sum() / whole.rows
            return {"tanh": LossTerm(value, self.coefficient.weight, warms_up=True)}
        assert isinstance(codes, DenseCodes)
        # without a graph nobody asks for the threshold's gradient, and values fire where z does
        z = codes.values if codes.pre_activations is None else codes.pre_activations
        fired: Tensor = _Fired.apply(z, self.threshold, self.bandwidth)  # type: ignore[no-untyped-call]
        if self.penalty == "l0":
            return {"l0": LossTerm(fired / whole.rows, self.coefficient.weight, warms_up=True)}
        value = self._target_loss(fired, z.shape[0], whole)
        return {"target_l0": LossTerm(value, self.target_l0_coefficient, warms_up=True)}

    def _target_loss(self, fired: Tensor, rows: int, whole: WholeBatch) -> Tensor:
        """D² of the whole batch, D = mean L0 / target_l0 − 1, written as a sum over rows: a row adds
        2 D (L0_row / target_l0 − 1) − D², D without a gradient, divided by the number of rows. Value and gradient of
        the sum are those of D².
        """
        assert self.target_l0 is not None
        target = target_count(self.target_l0, self.d_sae)
        all_fired = fired.detach() if whole.fired is None else whole.fired.to(fired.dtype)
        missed = all_fired / (whole.rows * target) - 1
        return (2 * missed * (fired / target - rows) - rows * missed**2) / whole.rows

    def pre_act_loss(self, x: Tensor, dead: Tensor, rows: int) -> Tensor:
        """By how much the dead latents miss their thresholds: Σ relu(θ − z) ‖W_dec‖ over them and the rows of x,
        divided by `rows`; scalar. x [b, d], dead [n].
        """
        missed = (self.threshold[dead] - self.pre_activations(x, dead)).relu()
        return self.weighed(missed, dead).sum() / rows

    @torch.no_grad()
    def observe(self, l0: Tensor, done: float, warmed: float = 1.0) -> None:
        """Beside the coefficient the thresholds themselves give way where far too little fires, all by the same."""
        super().observe(l0, done, warmed)
        if self.coefficient.target_l0 is not None:
            self.threshold.add_(NUDGE * (self.coefficient.gap + SLACK).clamp(-0.5, 0)).clamp_min_(0)

    @torch.no_grad()
    def after_optimizer_step(self) -> None:
        """Beside the unit norm of the decoder: no threshold is below 0, so no latent is negative."""
        super().after_optimizer_step()
        self.threshold.clamp_min_(0)

    def latent_parameters(self) -> dict[str, nn.Parameter]:
        return {**super().latent_parameters(), "threshold": self.threshold}

    @torch.no_grad()
    def revive(self, latents: Tensor, x: Tensor, error: Tensor) -> None:
        super().revive(latents, x, error)
        self.threshold[latents] = self.init_threshold


class _Jump(torch.autograd.Function):
    """z [b, s], θ [s], ε → z · 1[z > θ] [b, s]."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, threshold: Tensor, bandwidth: float) -> Tensor:
        ctx.save_for_backward(z, threshold)
        ctx.bandwidth = bandwidth
        return z * (z > threshold)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        z, threshold = ctx.saved_tensors
        near = (z - threshold).abs() < ctx.bandwidth / 2
        return grad * (z > threshold), -threshold / ctx.bandwidth * (grad * near).sum(dim=0), None


class _Fired(torch.autograd.Function):
    """z [b, s], θ [s], ε → Σ 1[z > θ] over rows and latents, scalar."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, threshold: Tensor, bandwidth: float) -> Tensor:
        near = ((z - threshold).abs() < bandwidth / 2).sum(dim=0).to(z.dtype)
        ctx.save_for_backward(near / -bandwidth)
        return (z > threshold).sum().to(z.dtype)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor, None]:
        (slope,) = ctx.saved_tensors
        return None, grad * slope, None
