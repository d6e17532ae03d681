"""What every sparse autoencoder shares: its weights, their start, the unit-norm decoder and the reconstruction term.

Shapes: b rows of a batch, d = d_in, s = d_sae. Weights keep one row a latent, W_enc [s, d] and W_dec [s, d], so that
sparse gradients, norms and resampling touch whole rows; an export transposes W_enc where a format asks for [d, s].
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from lightning_modules.functional import Codes, Spread, fraction_of_variance_unexplained, squared_error
from run_store import UserError


class LossTerm(NamedTuple):
    """One named part of the loss, before it is weighed."""

    value: Tensor
    """Scalar, as it is reported."""
    weight: float
    """What it is multiplied by in the total."""
    warms_up: bool = False
    """Whether the weight rises from 0 with the sparsity schedule."""


class WholeBatch(NamedTuple):
    """What the loss terms of a batch divide by. It is measured over all rows and has no graph.

    A loss term is a sum over rows, of what each row adds by itself, over quantities of the whole batch that the
    gradient does not pass through. So the gradient of a batch is the sum of the gradients of its parts, as long as
    every part divides by what the whole batch has: a part's own mean or variance would give another gradient.
    """

    rows: int
    variance: Tensor
    """Scalar, Σ‖x − mean‖²: what FVU divides by."""
    error: Spread | None = None
    """How the reconstruction errors spread, where a term divides by that."""
    fired: Tensor | None = None
    """Scalar int64, how often latents fired over all rows, where a term asks for it of a batch computed in parts."""

    def merged(self, other: WholeBatch) -> WholeBatch:
        """Of the rows of both."""
        error = None if self.error is None or other.error is None else self.error.merged(other.error)
        fired = None if self.fired is None or other.fired is None else self.fired + other.fired
        return WholeBatch(self.rows + other.rows, self.variance + other.variance, error, fired)


class TrainingPass(NamedTuple):
    """What an autoencoder gives back for a batch in training, or for a part of one."""

    codes: Codes
    reconstruction: Tensor
    """[b, d]."""
    terms: dict[str, LossTerm]
    """By name; `reconstruction` is always among them, in units of FVU. Those of the parts of a batch add up to those of
    the batch."""


class AuxiliaryLoss(Protocol):
    """A loss that several variants have: a part of them, not a parent."""

    def measured(
        self, whole: WholeBatch, autoencoder: Autoencoder, x: Tensor, dead: Tensor | None, error: Tensor | None
    ) -> WholeBatch:
        """`whole` with what the loss divides by."""
        ...

    def terms(
        self, autoencoder: Autoencoder, x: Tensor, error: Tensor, dead: Tensor | None, whole: WholeBatch
    ) -> dict[str, LossTerm]:
        """The loss under its name."""
        ...


class Autoencoder(nn.Module, ABC):
    """Template of every variant: x̂ = f(x) W_dec + b_dec.

    An instance first holds settings alone; `build` makes the weights once the data has told d_in. A variant says how it
    encodes and which loss terms it adds.

    Args:
        d_sae: number of latents.
    """

    rows_are_independent: ClassVar[bool] = True
    """Whether the latents of a row depend on that row alone. A variant that selects over the batch says False: its
    batches cannot be computed in parts."""

    auxiliary: AuxiliaryLoss | None = None
    """A loss that the variant shares with others; set in `__init__`."""

    W_enc: nn.Parameter
    b_enc: nn.Parameter
    W_dec: nn.Parameter
    b_dec: nn.Parameter
    mean: Tensor

    def __init__(self, d_sae: int) -> None:
        super().__init__()
        self.d_sae = d_sae

    @abstractmethod
    def encode(self, x: Tensor) -> Codes:
        """Latents of x [b, d]."""

    def sparsity_terms(
        self, x: Tensor, codes: Codes, error: Tensor, dead: Tensor | None, whole: WholeBatch
    ) -> dict[str, LossTerm]:
        """The variant's loss terms beside the reconstruction; those of its `auxiliary` by default.

        Args:
            x: [b, d], a batch or a part of one.
            codes: the latents of x.
            error: [b, d] what the reconstruction misses, x − x̂, detached.
            dead: [n] numbers of the latents that count as dead now, None when there are none.
            whole: what is measured over the whole batch. A term takes from here, never from x or codes, whatever is not
                a sum over rows.
        """
        return {} if self.auxiliary is None else self.auxiliary.terms(self, x, error, dead, whole)

    @torch.no_grad()
    def measure(self, x: Tensor, dead: Tensor | None = None, error: Tensor | None = None) -> WholeBatch:
        """What the loss terms divide by, for x [b, d]; those of parts are to be merged.

        Args:
            x: [b, d].
            dead: as in `sparsity_terms`.
            error: x − x̂, where it is known; a variant that needs it encodes x otherwise.
        """
        whole = WholeBatch(x.shape[0], squared_error(x, self.mean))
        return whole if self.auxiliary is None else self.auxiliary.measured(whole, self, x, dead, error)

    def check_settings(self) -> None:
        """Refuses settings that make no sense together.

        Raises:
            UserError: naming the setting.
        """
        if self.d_sae < 1:
            raise UserError(f"d_sae is {self.d_sae}: a dictionary needs at least 1 latent")

    def build(self, d_in: int) -> None:
        """Makes the weights for inputs of width d_in. Rows of W_dec are random unit vectors, W_enc = W_dec, biases are
        0.

        Raises:
            UserError: a setting is impossible.
        """
        self.check_settings()
        self.W_dec = nn.Parameter(nn.functional.normalize(torch.randn(self.d_sae, d_in), dim=1))
        self.W_enc = nn.Parameter(self.W_dec.detach().clone())
        self.b_enc = nn.Parameter(torch.zeros(self.d_sae))
        self.b_dec = nn.Parameter(torch.zeros(d_in))
        self.register_buffer("mean", torch.zeros(d_in))

    @property
    def d_in(self) -> int:
        """Width of the inputs; known after `build`."""
        return self.W_dec.shape[1]

    @torch.no_grad()
    def start_from_data(self, center: Tensor, mean: Tensor) -> None:
        """Sets b_dec to `center` and remembers the inputs' `mean`, both [d]: the mean is what FVU is measured
        against.
        """
        self.b_dec.copy_(center)
        self.mean.copy_(mean)

    def encoder_bias(self) -> Tensor:
        """b_enc − W_enc b_dec [s], so that (x − b_dec) W_encᵀ + b_enc needs no centred copy of x and the gradient of
        b_dec through the encoder is one matrix–vector product instead of a GEMM."""
        return self.b_enc - self.W_enc @ self.b_dec

    def decode(self, codes: Codes) -> Tensor:
        """x̂ [b, d]."""
        return codes.decode(self.W_dec) + self.b_dec

    def forward(self, x: Tensor) -> tuple[Codes, Tensor]:
        """Latents and reconstruction of x [b, d]."""
        codes = self.encode(x)
        return codes, self.decode(codes)

    def training_pass(self, x: Tensor, dead: Tensor | None = None, whole: WholeBatch | None = None) -> TrainingPass:
        """Latents, reconstruction and every loss term of x [b, d].

        Args:
            x: a batch, or a part of one.
            dead: as in `sparsity_terms`.
            whole: what `measure` says of the batch that x is a part of; by default x is all of it.
        """
        codes, reconstruction = self(x)
        error = (x - reconstruction).detach()
        if whole is None:
            whole = self.measure(x, dead, error)
        fvu = fraction_of_variance_unexplained(x, reconstruction, whole.variance)
        terms = {"reconstruction": LossTerm(fvu, 1.0), **self.sparsity_terms(x, codes, error, dead, whole)}
        return TrainingPass(codes, reconstruction, terms)

    @torch.no_grad()
    def before_optimizer_step(self) -> None:
        """Removes from the gradient of each decoder row what would only change its length: Adam's moments are then
        those of the directions alone.
        """
        grad = self.W_dec.grad
        if grad is not None:
            grad.sub_((grad * self.W_dec).sum(dim=1, keepdim=True) * self.W_dec)

    @torch.no_grad()
    def after_optimizer_step(self) -> None:
        """Brings every decoder row back to unit norm."""
        self.W_dec.div_(torch.linalg.vector_norm(self.W_dec, dim=1, keepdim=True).clamp_min(1e-12))
