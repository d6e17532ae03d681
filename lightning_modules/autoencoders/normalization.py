"""How activations are brought to a common scale before they are encoded. Statistics are estimated once, on a fixed
sample, and are buffers: they are in every checkpoint.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor, nn


class Normalized(NamedTuple):
    """Normalised rows and what undoes it."""

    x: Tensor
    """[b, d]."""
    shift: Tensor
    """Broadcasts against [b, d]: what was subtracted before scaling."""
    scale: Tensor
    """Broadcasts against [b, d]: what was multiplied after shifting."""

    def undo(self, reconstruction: Tensor) -> Tensor:
        """Brings a reconstruction [b, d] back to the scale of the input."""
        return reconstruction / self.scale + self.shift


class Normalization(nn.Module, ABC):
    """Template: `fit` looks at a sample once, `forward` normalises a batch."""

    def fit(self, sample: Tensor) -> None:
        """Estimates what is needed from a sample [n, d]; most need nothing."""

    @abstractmethod
    def forward(self, x: Tensor) -> Normalized:
        """Normalises x [b, d]."""

    def common_factor(self) -> Tensor | None:
        """Scalar that every row is multiplied by, which folds into the weights at export; None where more is done to a
        row than that.
        """
        return None


class NoNormalization(Normalization):
    """Activations as they are."""

    def forward(self, x: Tensor) -> Normalized:
        return Normalized(x, x.new_zeros(()), x.new_ones(()))

    def common_factor(self) -> Tensor:
        return torch.ones(())


class DatasetScale(Normalization):
    """One factor for the whole data set, so that the mean norm of a row is sqrt(d_in). It folds into the weights at
    export.
    """

    factor: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("factor", torch.ones(()))

    def fit(self, sample: Tensor) -> None:
        mean_norm = torch.linalg.vector_norm(sample, dim=1).mean()
        self.factor.copy_(sample.shape[1] ** 0.5 / mean_norm.clamp_min(1e-12))

    def forward(self, x: Tensor) -> Normalized:
        return Normalized(x * self.factor, x.new_zeros(()), self.factor)

    def common_factor(self) -> Tensor:
        return self.factor


class LayerNormalization(Normalization):
    """Every row is brought to mean 0 and variance 1 by itself (LayerNorm without weights). It does not fold into the
    weights.
    """

    def __init__(self, epsilon: float = 1e-5) -> None:
        super().__init__()
        self.epsilon = epsilon

    def forward(self, x: Tensor) -> Normalized:
        variance, mean = torch.var_mean(x, dim=1, keepdim=True, correction=0)
        scale = (variance + self.epsilon).rsqrt()
        return Normalized((x - mean) * scale, mean, scale)
