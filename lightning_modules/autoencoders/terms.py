"""What a loss is made of, and what its terms divide by.

Shapes: b rows of a batch, of which y [b, d_out] is reconstructed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

from torch import Tensor

from lightning_modules.functional import Codes, Spread


class LossTerm(NamedTuple):
    """One named part of the loss, before it is weighed."""

    value: Tensor
    """Scalar, as it is reported."""
    weight: float | Tensor
    """What it is multiplied by in the total; a tensor without a graph where a controller moves it."""
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
    """Scalar, Σ‖y − mean‖²: what FVU divides by."""
    unit: Tensor
    """Scalar, what squared errors are divided by in the loss: the variance, or the number of rows."""
    error: Spread | None = None
    """How the reconstruction errors spread, where a term divides by that."""
    fired: Tensor | None = None
    """Scalar, how often latents fired over all rows, where a term asks for it."""

    def merged(self, other: WholeBatch) -> WholeBatch:
        """Of the rows of both."""
        error = None if self.error is None or other.error is None else self.error.merged(other.error)
        fired = None if self.fired is None or other.fired is None else self.fired + other.fired
        return WholeBatch(self.rows + other.rows, self.variance + other.variance, self.unit + other.unit, error, fired)


Whole: TypeAlias = WholeBatch | Callable[[WholeBatch], WholeBatch] | None
"""Of the batch that some rows are a part of: what is measured of it, or what makes that of what is measured of the
rows, or None where they are all of it."""


class TrainingPass(NamedTuple):
    """What an autoencoder gives back for a batch in training, or for a part of one."""

    codes: Codes
    reconstruction: Tensor
    """[b, d_out]."""
    terms: dict[str, LossTerm]
    """By name; `reconstruction` is always among them. Those of the parts of a batch add up to those of the batch."""
    fvu: Tensor
    """Scalar, without a graph: the reconstruction's FVU, whatever unit the loss is in."""
