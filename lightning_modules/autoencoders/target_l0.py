"""A controller of the L0: the weight of a sparsity penalty, moved until as many latents fire as were asked for."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from run_store import UserError

INTEGRAL = 0.1
"""k_i, a step: some tens of steps close a gap, which is how long training takes to answer."""
DAMPING = 5.0
"""k_p. Thresholds and biases move by a learning rate a step whatever λ is, and need this much to be stopped in time."""
FALL, RISE = -0.1, 0.04
"""What the integral may change log λ by in a step. Rising is slower: too dense for a while is harmless, too sparse
leaves dead latents."""
LEAST, MOST = math.log(1e-3), 2.0
"""Gaps that are told apart: an L0 of 0 has no logarithm, and when half of a dictionary falls silent at the start, that
is not λ's doing."""
RANGE = math.log(1000)
"""How far log λ may go from where it began, either way."""


def target_count(target_l0: float, d_sae: int) -> float:
    """How many latents a target asks for: from 1 on the number itself, below 1 a share of d_sae."""
    return target_l0 * d_sae if target_l0 < 1 else target_l0


def check_target(target_l0: float | None, d_sae: int) -> None:
    """Refuses a target that no code can have.

    Raises:
        UserError: naming target and d_sae.
    """
    if target_l0 is not None and not 0 < target_l0 <= d_sae:
        raise UserError(
            f"target_l0 is {target_l0} and d_sae is {d_sae}: target_l0 must be a share of d_sae, above 0 and below 1, "
            "or a number of latents up to d_sae"
        )


class SparsityCoefficient(nn.Module):
    """The weight λ of a sparsity penalty: constant, or, with a target, moved after every step by a PI controller on its
    logarithm. With the gap e = log(L0 / goal),

        log λ = I + k_p · e,  Δ I = clip(k_i · e, FALL, RISE)

    The first term moves as long as there is a gap, the second answers at once and goes as the gap goes: an L0 that
    comes back by itself finds λ where it was. Both keep to `RANGE`. All of it is on the device and the same on every
    rank, as the L0 is.

    The goal comes down from the L0 of the first step to the target while the sparsity warm-up lasts, along a straight
    line of logarithms: a dictionary that must be sparse before it has learnt anything loses latents for good.

    Which λ gives the L0 changes while a dictionary is learnt, and with the learning rate: the controller follows to the
    end of the run. It makes up for a λ that is 30 times too high or too low within some 500 steps.

    Args:
        name: the setting's name, for messages and curves.
        value: λ, or what it starts from.
        target_l0: the mean L0 that is asked for: from 1 on a number of latents, below 1 a share of d_sae. None leaves λ
            constant.
        d_sae: number of latents.
    """

    log_value: Tensor
    integral: Tensor
    gap: Tensor
    """e after the last step, scalar."""
    first_log_l0: Tensor
    started: Tensor

    def __init__(self, name: str, value: float, target_l0: float | None, d_sae: int) -> None:
        super().__init__()
        self.name = name
        self.value = float(value)
        self.target_l0 = target_l0
        self.d_sae = d_sae
        if target_l0 is not None:
            self.register_buffer("log_value", torch.tensor(self._start))
            self.register_buffer("integral", torch.tensor(self._start))
            self.register_buffer("gap", torch.zeros(()))
            self.register_buffer("first_log_l0", torch.zeros(()))
            self.register_buffer("started", torch.zeros((), dtype=torch.bool))

    @property
    def _start(self) -> float:
        return math.log(self.value) if self.value > 0 else 0.0

    @property
    def weight(self) -> float | Tensor:
        """λ; a scalar tensor where there is a target."""
        return self.value if self.target_l0 is None else self.log_value.exp()

    def check(self) -> None:
        """Refuses what cannot be.

        Raises:
            UserError: no code can have the target's L0, or λ starts from 0.
        """
        check_target(self.target_l0, self.d_sae)
        if self.target_l0 is not None and self.value == 0:
            raise UserError(
                f"target_l0 is {self.target_l0} and {self.name} is 0, from where no factor leads away: leave one out"
            )

    @torch.no_grad()
    def observe(self, l0: Tensor, warmed: float = 1.0) -> None:
        """Moves λ.

        Args:
            l0: scalar, the mean L0 of the last step's rows over all ranks.
            warmed: the share of the sparsity warm-up that is done, in (0, 1].
        """
        if self.target_l0 is None:
            return
        log_target = math.log(target_count(self.target_l0, self.d_sae))
        log_l0 = l0.to(self.log_value).log()
        self.first_log_l0.copy_(torch.where(self.started, self.first_log_l0, log_l0.clamp_min(log_target)))
        self.started.fill_(True)
        log_goal = self.first_log_l0 + warmed * (log_target - self.first_log_l0)
        self.gap.copy_((log_l0 - log_goal).clamp(LEAST, MOST))
        self.integral.add_((INTEGRAL * self.gap).clamp(FALL, RISE))
        self.integral.clamp_(self._start - RANGE, self._start + RANGE)
        self.log_value.copy_((self.integral + DAMPING * self.gap).clamp(self._start - RANGE, self._start + RANGE))

    def gauges(self) -> dict[str, Tensor]:
        """λ under its setting's name, where there is a target."""
        return {} if self.target_l0 is None else {self.name: self.log_value.exp()}
