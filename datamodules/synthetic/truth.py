"""Everything that is true of a synthetic data set, drawn from its settings and a seed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jsonargparse.typing import NonNegativeFloat, NonNegativeInt, OpenUnitInterval, PositiveFloat, PositiveInt
from torch import Tensor

from datamodules.synthetic.dictionary import Coherence, coherence_of, unit_atoms
from datamodules.synthetic.firing import power_law
from datamodules.synthetic.magnitudes import HalfNormal, Magnitudes
from datamodules.synthetic.structure import CorrelatedGroups, Forest, make_structure


@dataclass(frozen=True)
class FeatureSettings:
    """What decides the truth and with it every row.

    Args:
        d: Width of the activations.
        count: Features; more than d are in superposition.
        mean_l0: Features that fire in a row, on average.
        exponent: Of the power law of the firing rates; 0 makes all alike.
        magnitudes: The law of how strongly a feature is present; half-normal by default.
        correlation: Groups of features that fire together; none by default.
        hierarchy: Trees in which a child fires only where its parent does; none by default.
        noise: Standard deviation of the Gaussian noise in every dimension.
        bias_norm: Norm of a fixed vector that is added to every row.
        max_coherence: The largest |cosine| between two atoms that is allowed; null takes random directions as they are.
        seed: Decides everything that is drawn.
    """

    d: PositiveInt
    count: PositiveInt
    mean_l0: PositiveFloat = 8.0
    exponent: NonNegativeFloat = 1.0
    magnitudes: Magnitudes | None = None
    correlation: CorrelatedGroups | None = None
    hierarchy: Forest | None = None
    noise: NonNegativeFloat = 0.0
    bias_norm: NonNegativeFloat = 0.0
    max_coherence: OpenUnitInterval | None = None
    seed: NonNegativeInt = 0

    @property
    def law(self) -> Magnitudes:
        """The law of the magnitudes."""
        return HalfNormal() if self.magnitudes is None else self.magnitudes


class Truth(NamedTuple):
    """What a dictionary that was learned can be compared with. Features are numbered by falling rate."""

    atoms: Tensor
    """float32 [n, d], rows of norm 1."""
    probabilities: Tensor
    """float64 [n]: in what share of the rows each feature fires."""
    parents: Tensor
    """int64 [n]: number of the feature without which it never fires; -1 for none."""
    groups: Tensor
    """int64 [n]: number of its correlated group; -1 for none."""
    bias: Tensor
    """float32 [d], added to every row."""
    coherence: Coherence


def make_truth(settings: FeatureSettings) -> Truth:
    """The same for the same settings.

    Raises:
        UserError: the settings contradict each other.
    """
    # a stream of its own for each thing that is drawn: more features leave the bias as it was
    draws = [np.random.default_rng([settings.seed, part]) for part in range(3)]
    probabilities = power_law(settings.count, settings.exponent, settings.mean_l0)
    structure = make_structure(settings.count, settings.correlation, settings.hierarchy, draws[0])
    atoms = unit_atoms(settings.count, settings.d, draws[1], settings.max_coherence).astype(np.float32)
    bias = settings.bias_norm * unit_atoms(1, settings.d, draws[2])[0]
    return Truth(
        torch.from_numpy(atoms),
        torch.from_numpy(probabilities),
        torch.from_numpy(structure.parents),
        torch.from_numpy(structure.groups),
        torch.from_numpy(bias.astype(np.float32)),
        coherence_of(atoms),
    )
