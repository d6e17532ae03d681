"""What every sparse autoencoder shares: its weights, their start, the unit-norm decoder and the reconstruction term.

Shapes: b rows of a batch, s = d_sae. x [b, d_in] is read and y [b, d_out] reconstructed; an autoencoder's y is x.
Weights keep one row a latent, W_enc [s, d_in] and W_dec [s, d_out], so that sparse gradients, norms and resampling
touch whole rows; an export transposes W_enc where a format asks for [d_in, s].
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol

import torch
from torch import Tensor, nn

from lightning_modules.autoencoders.inference import Activation
from lightning_modules.autoencoders.sharding import latents_held, place_parameters
from lightning_modules.autoencoders.target_l0 import SparsityCoefficient
from lightning_modules.autoencoders.terms import LossTerm, TrainingPass, Whole, WholeBatch
from lightning_modules.autoencoders.wiring import Autoencoding, Wiring
from lightning_modules.functional import Codes, Missed, missed, squared_error
from lightning_modules.functional.sharded import common, held_of, local, mean_over_latents, shared
from run_store import UserError

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh


class AuxiliaryLoss(Protocol):
    """A loss that several variants have: a part of them, not a parent."""

    def measured(
        self,
        whole: WholeBatch,
        autoencoder: Autoencoder,
        x: Tensor,
        y: Tensor,
        dead: Tensor | None,
        error: Tensor | None,
    ) -> WholeBatch:
        """`whole` with what the loss divides by."""
        ...

    def terms(
        self, autoencoder: Autoencoder, x: Tensor, error: Tensor, dead: Tensor | None, whole: WholeBatch
    ) -> dict[str, LossTerm]:
        """The loss under its name."""
        ...


class Autoencoder(nn.Module, ABC):
    """Template of every variant: ŷ = f(x) W_dec + b_dec, with y = x unless the wiring says otherwise.

    An instance first holds settings alone; `build` makes the weights once the data has told the widths. A variant says
    how it encodes and which loss terms it adds.

    Args:
        d_sae: number of latents.
        wiring: what is read and what is reconstructed; one hook point for both by default.
    """

    rows_are_independent: ClassVar[bool] = True
    """Whether a row's latents depend on that row alone; batches of a variant that says False cannot be cut."""

    encodes_by_pre_activations: ClassVar[bool] = False
    """Whether `encode` asks for all pre-activations through `pre_activations`, as a wiring needs that does not multiply
    all of x with all of W_enc."""

    shardable: ClassVar[bool] = False
    """Whether ranks that hold a part of the latents each can do all that it does (see `functional.sharded`)."""

    signed: ClassVar[bool] = False
    """Whether latents may be negative, so that one stands for a direction and its opposite."""

    revived_length: ClassVar[float] = 0.2
    """How long the encoder row of a latent that is started anew becomes, as a share of the others' mean. The published
    fifth disturbs little, but is too short where a latent must be among the largest to fire, and learns only then."""

    mesh: DeviceMesh | None = None
    """Of the ranks that share the latents, of one dimension; set before `build`, which then makes this one's part of
    the weights, as DTensors."""

    auxiliary: AuxiliaryLoss | None = None
    """A loss that the variant shares with others; set in `__init__`."""

    reconstruction_unit: Literal["fvu", "mse"] = "fvu"
    """Unit of squared errors in the loss: their share of the variance, so that coefficients mean the same on every
    input scale, or their sum over d_out and mean over rows."""

    W_enc: nn.Parameter
    b_enc: nn.Parameter
    W_dec: nn.Parameter
    b_dec: nn.Parameter
    mean: Tensor
    coefficient: SparsityCoefficient | None
    """Weight of the sparsity penalty, which may follow a target L0; set in `__init__` where there is one."""

    def __init__(self, d_sae: int, wiring: Wiring | None = None) -> None:
        super().__init__()
        self.d_sae = d_sae
        self.wiring = Autoencoding() if wiring is None else wiring
        self.coefficient = None

    @abstractmethod
    def encode(self, x: Tensor) -> Codes:
        """Latents of x [b, d_in]."""

    def inference(self) -> Activation:
        """What `encode` comes down to in evaluation, for file formats.

        Raises:
            UserError: to nothing that they know.
        """
        raise UserError(f"{type(self).__name__} encodes as no file format of others knows: use --format safetensors")

    def reconstruction_terms(
        self, x: Tensor, y: Tensor, codes: Codes, missed: Missed, whole: WholeBatch
    ) -> dict[str, LossTerm]:
        """How much of y [b, d_out] the reconstruction has `missed`; `reconstruction` is always among the terms."""
        return {"reconstruction": LossTerm(missed.squared / whole.unit, 1.0)}

    def sparsity_terms(
        self, x: Tensor, y: Tensor, codes: Codes, error: Tensor, dead: Tensor | None, whole: WholeBatch
    ) -> dict[str, LossTerm]:
        """The variant's loss terms beside the reconstruction; those of its `auxiliary` by default.

        Args:
            x: [b, d_in], a batch or a part of one.
            y: [b, d_out], what is reconstructed.
            codes: the latents of x.
            error: [b, d_out] what the reconstruction misses, y − ŷ, detached.
            dead: [n] numbers of the latents that count as dead now, None when there are none.
            whole: what is measured over the whole batch. A term takes from here, never from x or codes, whatever is not
                a sum over rows.
        """
        return {} if self.auxiliary is None else self.auxiliary.terms(self, x, error, dead, whole)

    @torch.no_grad()
    def measure(
        self,
        x: Tensor,
        dead: Tensor | None = None,
        error: Tensor | None = None,
        y: Tensor | None = None,
        codes: Codes | None = None,
    ) -> WholeBatch:
        """What the loss terms divide by, for x [b, d_in]; those of parts are to be merged.

        Args:
            x: [b, d_in].
            dead: as in `sparsity_terms`.
            error: y − ŷ, where it is known; a variant that needs it encodes x otherwise.
            y: [b, d_out] what is reconstructed; x by default.
            codes: the latents of x, where they are known; a variant that needs them encodes x otherwise.
        """
        y = x if y is None else y
        variance = squared_error(y, self.mean)
        unit = variance if self.reconstruction_unit == "fvu" else variance.new_tensor(float(len(y)))
        whole = WholeBatch(len(y), variance, unit)
        return whole if self.auxiliary is None else self.auxiliary.measured(whole, self, x, y, dead, error)

    def check_settings(self) -> None:
        """Refuses settings that make no sense together.

        Raises:
            UserError: naming the setting.
        """
        if self.d_sae < 1:
            raise UserError(f"d_sae is {self.d_sae}: a dictionary needs at least 1 latent")
        variant, wiring = type(self).__name__, type(self.wiring).__name__
        if self.shares_directions and not self.wiring.same_space:
            raise UserError(
                f"{variant} encodes and decodes with the same directions, and {wiring} reconstructs another hook point "
                "than it reads: take another autoencoder or another wiring"
            )
        if self.wiring.needs_pre_activations and not self.encodes_by_pre_activations:
            raise UserError(f"{variant} cannot be wired as {wiring}: take JumpReLU, ReLU or Gated")
        if self.coefficient is not None:
            self.coefficient.check()

    def build(self, inputs: int | Sequence[int], outputs: int | Sequence[int] | None = None) -> None:
        """Makes the weights. Rows of W_dec are random unit vectors, W_enc = W_dec, biases are 0, unless the wiring
        starts otherwise.

        Args:
            inputs: widths of the hook points that are read.
            outputs: widths of those that are reconstructed; the same by default.

        Raises:
            UserError: a setting is impossible.
        """
        self.check_settings()
        inputs = (inputs,) if isinstance(inputs, int) else tuple(inputs)
        outputs = inputs if outputs is None else (outputs,) if isinstance(outputs, int) else tuple(outputs)
        self.wiring.build(inputs, outputs)
        held = latents_held(self.mesh, self.d_sae)
        W_enc, W_dec = self.wiring.start(self.d_sae, held)
        self.W_enc, self.W_dec = nn.Parameter(W_enc), nn.Parameter(W_dec)
        self.b_enc = nn.Parameter(torch.zeros(len(held)))
        self.b_dec = nn.Parameter(torch.zeros(sum(outputs)))
        self.register_buffer("mean", torch.zeros(sum(outputs)))
        self.build_own()
        if self.mesh is not None:
            place_parameters(self, self.latent_parameters().values(), self.mesh)

    def build_own(self) -> None:
        """Makes the variant's own parameters and buffers; those of all variants are there."""

    @property
    def shares_directions(self) -> bool:
        """Whether encoder and decoder have the same directions, so that only x itself can be reconstructed."""
        return False

    @property
    def d_in(self) -> int:
        """Width of x; known after `build`."""
        return sum(self.wiring.inputs)

    @property
    def d_out(self) -> int:
        """Width of y; known after `build`."""
        return sum(self.wiring.outputs)

    @torch.no_grad()
    def start_from_data(self, center: Tensor, mean: Tensor, center_of_x: Tensor | None = None) -> None:
        """Sets b_dec to `center`, unless the wiring starts otherwise, and remembers the `mean` that FVU is measured
        against, both of y [d_out]; `center_of_x` [d_in] is the same by default.
        """
        local(self.b_dec).copy_(self.wiring.start_from_data(center if center_of_x is None else center_of_x, center))
        self.mean.copy_(mean)

    def encoder_bias(self) -> Tensor:
        """[s], such that pre-activations are x W_encᵀ + it; where latents are sharded, of those in this process."""
        return self.wiring.encoder_bias(local(self.W_enc), local(self.b_enc), shared(self.b_dec))

    def pre_activations(self, x: Tensor, latents: Tensor | None = None) -> Tensor:
        """z [b, s] of x [b, d_in], or [b, n] of some latents [n], in the weights' dtype."""
        return self.wiring.project(x, self.W_enc, self.encoder_bias(), latents).to(self.W_enc.dtype)

    def weighed(self, values: Tensor, latents: Tensor | None = None) -> Tensor:
        """Latents [b, s], or values of some latents [b, n], as a penalty counts them: times the norms of their decoder
        rows, where these are not 1.
        """
        norms = self.wiring.decoder_norms(self.W_dec if latents is None else self.W_dec[latents])
        return values if norms is None else values * norms

    def without_latents(self, x: Tensor) -> Tensor:
        """ŷ when every latent is 0: [b, d_out]."""
        skipped = self.wiring.skip(x)
        b_dec = common(self.b_dec)
        return b_dec.expand(len(x), -1) if skipped is None else b_dec + skipped

    def decode(self, codes: Codes, x: Tensor) -> Tensor:
        """ŷ [b, d_out]; x [b, d_in] is what the codes are of, for wirings that let some of it past the latents."""
        decoded, b_dec = self.wiring.decode(codes, self.W_dec), common(self.b_dec)
        # in place but where autocast has made it narrower than the bias
        reconstruction = decoded.add_(b_dec) if decoded.dtype == b_dec.dtype else decoded + b_dec
        skipped = self.wiring.skip(x)
        return reconstruction if skipped is None else reconstruction + skipped

    def forward(self, x: Tensor) -> tuple[Codes, Tensor]:
        """Latents and reconstruction of x [b, d_in]."""
        codes = self.encode(x)
        return codes, self.decode(codes, x)

    def training_pass(
        self, x: Tensor, dead: Tensor | None = None, whole: Whole = None, y: Tensor | None = None
    ) -> TrainingPass:
        """Latents, reconstruction and every loss term of x [b, d_in].

        Args:
            x: a batch, or a part of one.
            dead: as in `sparsity_terms`.
            whole: what `measure` says of the batch that x is a part of, or what makes it of what it says of x; by
                default x is all of it.
            y: [b, d_out] what is reconstructed; x by default.
        """
        y = x if y is None else y
        codes, reconstruction = self(x)
        lost = missed(y, reconstruction)
        if not isinstance(whole, WholeBatch):
            own = self.measure(x, dead, lost.error, y, codes)
            whole = own if whole is None else whole(own)
        terms = {
            **self.reconstruction_terms(x, y, codes, lost, whole),
            **self.sparsity_terms(x, y, codes, lost.error, dead, whole),
        }
        return TrainingPass(codes, reconstruction, terms, lost.squared.detach() / whole.variance)

    @torch.no_grad()
    def before_optimizer_step(self) -> None:
        """Removes from the gradient of each decoder row what would only change its length: Adam's moments are then
        those of the directions alone.
        """
        if self.W_dec.grad is not None and self.wiring.unit_norm:
            grad, W_dec = local(self.W_dec.grad), local(self.W_dec)
            along = torch.linalg.vecdot(grad, W_dec)
            grad.addcmul_(along[:, None], W_dec, value=-1)

    @torch.no_grad()
    def after_optimizer_step(self) -> None:
        """Brings every decoder row back to unit norm."""
        if self.wiring.unit_norm:
            W_dec = local(self.W_dec)
            W_dec.div_(torch.linalg.vector_norm(W_dec, dim=1, keepdim=True).clamp_min(1e-12))

    def observe(self, l0: Tensor, done: float, warmed: float = 1.0) -> None:
        """Told after every optimiser step, for variants that steer themselves by what has come of it.

        Args:
            l0: scalar, the mean L0 of the step's rows over all ranks, on the weights' device.
            done: the share of the run that is done, in (0, 1].
            warmed: the share of the sparsity warm-up that is done, in (0, 1].
        """
        if self.coefficient is not None:
            self.coefficient.observe(l0, warmed)

    def gauges(self) -> dict[str, Tensor]:
        """Scalars by name that are worth a curve beside the losses, such as a threshold."""
        return {} if self.coefficient is None else self.coefficient.gauges()

    def latent_parameters(self) -> dict[str, nn.Parameter]:
        """Parameters with one row a latent, by name: what a latent that is started anew takes along."""
        named = {name: getattr(self, name) for name in ("W_enc", "b_enc", "W_dec")}
        return {name: parameter for name, parameter in named.items() if parameter is not None}

    @torch.no_grad()
    def revive(self, latents: Tensor, x: Tensor, error: Tensor) -> None:
        """Starts dead latents anew, each towards a row that is reconstructed badly (Bricken et al. 2023): encoder rows
        become `revived_length` times as long as those of the others are on average, biases 0.

        Args:
            latents: [n] their numbers.
            x: [n, d_in] the rows.
            error: [n, d_out] y − ŷ of the rows.
        """
        held = held_of(latents, self.W_enc)
        W_enc, W_dec = local(self.W_enc), local(self.W_dec)
        others = torch.ones(len(W_enc), dtype=torch.bool, device=latents.device).index_fill_(0, held.rows, False)
        length = mean_over_latents(torch.linalg.vector_norm(W_enc[others], dim=1), self.W_enc)
        new = self.wiring.revival(latents[held.which], x[held.which], error[held.which], local(self.b_dec))
        W_dec[held.rows] = new.decoder.to(W_dec)
        if not self.shares_directions:
            W_enc[held.rows] = (self.revived_length * length * new.encoder).to(W_enc)
        if self.b_enc is not None:
            local(self.b_enc)[held.rows] = 0
