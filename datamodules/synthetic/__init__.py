from datamodules.synthetic.dictionary import Coherence, coherence_of, unit_atoms, welch_bound
from datamodules.synthetic.firing import FiringModel, power_law
from datamodules.synthetic.magnitudes import Constant, Exponential, HalfNormal, LogNormal, Magnitudes
from datamodules.synthetic.stream import EndlessOrder, SyntheticStream
from datamodules.synthetic.structure import CorrelatedGroups, Forest
from datamodules.synthetic.truth import FeatureSettings, Truth, make_truth

__all__ = [
    "Coherence",
    "Constant",
    "CorrelatedGroups",
    "EndlessOrder",
    "Exponential",
    "FeatureSettings",
    "FiringModel",
    "Forest",
    "HalfNormal",
    "LogNormal",
    "Magnitudes",
    "SyntheticStream",
    "Truth",
    "coherence_of",
    "make_truth",
    "power_law",
    "unit_atoms",
    "welch_bound",
]
