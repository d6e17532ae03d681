"""What variants come down to in evaluation: how latents f [b, s] follow from pre-activations z [b, s]. There are fewer
of these than variants, and they are what file formats know.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Protocol

from torch import Tensor
from typing_extensions import Self


class Activation(Protocol):
    """One of the classes below: f of z."""

    words: ClassVar[str]
    """What it does, after the name of a variant."""
    latents_compete: ClassVar[bool]
    """Whether a latent's firing depends on the others: then all latents must be scaled alike, or others fire."""

    def scaled(self, factor: Tensor) -> Self:
        """The activation that gives factor · f of factor · z.

        Args:
            factor: positive, [s], or [] where latents compete.
        """
        ...


@dataclass(frozen=True)
class Rectifier:
    """f = relu(z)."""

    words: ClassVar[str] = "keeps every latent above 0"
    latents_compete: ClassVar[bool] = False

    def scaled(self, factor: Tensor) -> Rectifier:
        return self


@dataclass(frozen=True)
class LargestValues:
    """f keeps the k largest of relu(z)."""

    k: int
    words: ClassVar[str] = "keeps the k largest latents"
    latents_compete: ClassVar[bool] = True

    def scaled(self, factor: Tensor) -> LargestValues:
        return self


@dataclass(frozen=True)
class LargestMagnitudes:
    """f keeps the k of the largest |z| with their sign."""

    k: int
    words: ClassVar[str] = "keeps latents with a sign"
    latents_compete: ClassVar[bool] = True

    def scaled(self, factor: Tensor) -> LargestMagnitudes:
        return self


@dataclass(frozen=True)
class Thresholds:
    """f = z · 1[z > θ]."""

    threshold: Tensor
    """[s], ≥ 0."""
    words: ClassVar[str] = "keeps what exceeds a threshold"
    latents_compete: ClassVar[bool] = False

    def scaled(self, factor: Tensor) -> Thresholds:
        return Thresholds(self.threshold * factor)


@dataclass(frozen=True)
class Gate:
    """f = 1[z > 0] · relu(exp(r_mag) · z + offset)."""

    r_mag: Tensor
    """[s]."""
    offset: Tensor
    """[s]."""
    words: ClassVar[str] = "has a gate beside the magnitude"
    latents_compete: ClassVar[bool] = False

    def scaled(self, factor: Tensor) -> Gate:
        return replace(self, offset=self.offset * factor)


@dataclass(frozen=True)
class Pursuit:
    """At most `steps` times the unit row W_dec[i] with the largest inner product with what is left of x − b_dec takes
    that much of it, as long as it is above 0; f adds up what each row took. There is no z.
    """

    steps: int
    residual_threshold: float
    """What is left is left alone once it is shorter than this."""
    words: ClassVar[str] = "encodes by matching pursuit"
    latents_compete: ClassVar[bool] = True

    def scaled(self, factor: Tensor) -> Pursuit:
        return replace(self, residual_threshold=self.residual_threshold * float(factor))
