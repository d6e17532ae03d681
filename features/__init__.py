"""What is gathered of an autoencoder's latents: statistics in one pass, labels, neighbours."""

from features.co_firing import CoFiring, co_firing
from features.collector import FeatureCollector, Features, Keeping
from features.firings import Firings
from features.geometry import layout, nearest
from features.histograms import BINS
from features.kept_places import Places
from features.labels import Label, automatic_labels
from features.patterns import KINDS, Kind, Patterns, typical_patterns
from features.row_sample import NO_TOKEN, SampledRows
from features.windows import BatchRows

__all__ = [
    "BINS",
    "KINDS",
    "NO_TOKEN",
    "BatchRows",
    "CoFiring",
    "FeatureCollector",
    "Features",
    "Firings",
    "Keeping",
    "Kind",
    "Label",
    "Patterns",
    "Places",
    "SampledRows",
    "automatic_labels",
    "co_firing",
    "layout",
    "nearest",
    "typical_patterns",
]
