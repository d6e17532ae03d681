"""What an autoencoder reads and what it reconstructs: a part of every variant, so that any of them can be a transcoder
or a crosscoder.

Shapes: b rows, s = d_sae latents, d_in and d_out the summed widths of the hook points that are read and reconstructed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from lightning_modules.functional import Codes
from lightning_modules.functional.sharded import common
from run_store import UserError

DRAWN_AT_ONCE = 4096
"""Random rows, of which a process may keep none; a multiple of 16."""


class Sides(NamedTuple):
    """Places in the list of a batch's hook points."""

    read: tuple[int, ...]
    """Their activations, one behind the other, are x."""
    reconstructed: tuple[int, ...]
    """Theirs are y; where both are the same, so are x and y."""


class Revival(NamedTuple):
    """New directions of n latents."""

    encoder: Tensor
    """[n, d_in], unit rows; how long they become is up to whoever asks."""
    decoder: Tensor
    """[n, d_out], as they shall stand in W_dec."""


class Wiring(nn.Module, ABC):
    """Template: which hook points are read and which reconstructed, how both meet the weights, and what reaches the
    reconstruction beside the latents. `build` is called once the data has told the widths.
    """

    unit_norm: ClassVar[bool] = True
    """Whether rows of W_dec are brought back to unit norm after every step."""
    same_space: ClassVar[bool] = True
    """Whether y is x, so that encoder and decoder may share directions."""
    centered_on_b_dec: ClassVar[bool] = True
    """Whether the encoder reads x − b_dec. Where b_dec is not the middle of x, it reads x − `center` instead."""
    needs_pre_activations: ClassVar[bool] = False
    """Whether it has a `project` of its own, which the variant must go through."""

    shardable: ClassVar[bool] = True
    """Whether all that it does with weights it does for each latent by itself, or through `codes.decode`."""

    affine: bool = False
    """Whether W_skip is learnt; set in `__init__`."""
    W_skip: nn.Parameter | None
    """[d_in, d_out], what x says of y past the latents; 0 at the start, None where nothing is learnt."""
    center: Tensor
    """[d_in], where it is not b_dec: a buffer, the middle of the sample of x that all start values come from."""

    @abstractmethod
    def sides(self, hook_points: Sequence[str]) -> Sides:
        """Which of the data's hook points are read and which reconstructed.

        Raises:
            UserError: there are too few of them, or too many.
        """

    def build(self, inputs: Sequence[int], outputs: Sequence[int]) -> None:
        """Makes the wiring's own parameters, if it has any.

        Args:
            inputs: widths of the hook points that are read.
            outputs: widths of those that are reconstructed.

        Raises:
            UserError: the widths do not go together.
        """
        self.inputs, self.outputs = tuple(inputs), tuple(outputs)
        self.W_skip = nn.Parameter(torch.zeros(sum(inputs), sum(outputs))) if self.affine else None
        if not self.centered_on_b_dec:
            self.register_buffer("center", torch.zeros(sum(inputs)))

    def start(self, d_sae: int, held: range | None = None) -> tuple[Tensor, Tensor]:
        """W_enc [s, d_in] and W_dec [s, d_out] to start from: the same random unit rows. Of some latents `held` their
        rows alone, which are what they would be among all.
        """
        W_dec = random_unit_rows(d_sae, sum(self.outputs), held)
        return W_dec.clone(), W_dec

    @torch.no_grad()
    def start_from_data(self, center_of_x: Tensor, center_of_y: Tensor) -> Tensor:
        """b_dec [d_out] to start from; center_of_x is [d_in] and center_of_y [d_out]."""
        if not self.centered_on_b_dec:
            self.center.copy_(center_of_x)
        return center_of_y

    def origin(self, b_dec: Tensor) -> Tensor:
        """What the encoder sees as 0: [d_in]."""
        return b_dec if self.centered_on_b_dec else self.center

    def encoder_bias(self, W_enc: Tensor, b_enc: Tensor, b_dec: Tensor) -> Tensor:
        """b_enc − W_enc b_dec [s], so that (x − b_dec) W_encᵀ + b_enc needs no centred copy of x and the gradient of
        b_dec through the encoder is one matrix–vector product instead of a GEMM. It is `origin` instead of b_dec where
        these differ."""
        return b_enc - W_enc @ self.origin(b_dec)

    def project(self, x: Tensor, W_enc: Tensor, bias: Tensor, latents: Tensor | None = None) -> Tensor:
        """Pre-activations [b, s] of x [b, d_in], or [b, n] of some latents [n]."""
        if latents is not None:
            W_enc, bias = W_enc[latents], bias[latents]
        return nn.functional.linear(x, W_enc, bias)

    def decode(self, codes: Codes, W_dec: Tensor) -> Tensor:
        """What the latents say of y: [b, d_out], without a bias."""
        return codes.decode(W_dec)

    def skip(self, x: Tensor) -> Tensor | None:
        """What x says of y past the latents, [b, d_out]; None where nothing does."""
        return None if self.W_skip is None else x @ common(self.W_skip)

    def decoder_norms(self, W_dec: Tensor) -> Tensor | None:
        """What a penalty on latents weighs them with, [s], so that it cannot be escaped by shrinking f while W_dec
        grows: the norms of the rows; None where they are 1 for all.
        """
        return None if self.unit_norm else torch.linalg.vector_norm(W_dec, dim=1)

    def revival(self, latents: Tensor, x: Tensor, error: Tensor, b_dec: Tensor) -> Revival:
        """Directions for dead latents, towards what is reconstructed badly. Where y is not x, rows of W_dec start anew
        as they first did, at 0: the error says in the next step what to write, and until then nothing is disturbed.

        Args:
            latents: [n] their numbers.
            x: [n, d_in] a row for each of them.
            error: [n, d_out] y − ŷ of these rows.
            b_dec: [d_out].
        """
        direction = nn.functional.normalize(x - self.origin(b_dec), dim=1)
        return Revival(direction, direction if self.same_space else torch.zeros_like(error))

    def gauges(self, W_dec: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
        """Scalars by name that are worth a curve beside the scores of an evaluation; each a mean over latents.

        Args:
            W_dec: [s, d_out], of all latents or of as many as other ranks have.
            names: of the hook points that are reconstructed.
        """
        return {}


def random_unit_rows(rows: int, width: int, held: range | None = None) -> Tensor:
    """[rows, width], or those of the rows that are `held`: the same numbers, drawn with little memory."""
    if held is None or len(held) == rows:
        return nn.functional.normalize(torch.randn(rows, width), dim=1)
    kept, first = [], 0
    while first < rows:
        # torch draws sixteen numbers at a time, and the last of them anew where they are fewer: so blocks of whole
        # sixteens, and no short one at the end
        drawn = DRAWN_AT_ONCE if rows - first >= 2 * DRAWN_AT_ONCE else rows - first
        block = torch.randn(drawn, width)
        kept.append(block[max(0, held.start - first) : max(0, held.stop - first)].clone())
        first += drawn
    return nn.functional.normalize(torch.cat(kept), dim=1)


def only_hook_point(hook_points: Sequence[str]) -> Sides:
    """The one hook point that is read and reconstructed.

    Raises:
        UserError: there are several.
    """
    if len(hook_points) != 1:
        raise UserError(
            f"an autoencoder reads one hook point and the data gives {len(hook_points)} ({', '.join(hook_points)}): "
            "name one of them in data.hook_points, or set model.autoencoder.wiring to Transcoder or Crosscoder"
        )
    return Sides((0,), (0,))


class Autoencoding(Wiring):
    """x̂ = f(x) W_dec + b_dec: one hook point is read and reconstructed."""

    def sides(self, hook_points: Sequence[str]) -> Sides:
        return only_hook_point(hook_points)
