"""What is gathered of an autoencoder's latents: statistics in one pass, labels, neighbours."""

from features.collector import FeatureCollector, Features, Keeping
from features.facts import Facts
from features.firings import Firings
from features.geometry import layout, nearest
from features.histograms import BINS
from features.kept_places import Places
from features.labels import Label, automatic_labels
from features.partners import CoFiring, co_firing
from features.patterns import KINDS, Kind, Patterns, typical_patterns
from features.row_sample import NO_TOKEN, SampledRows
from features.token_latents import TokenLatents, token_latents
from features.windows import BatchRows

__all__ = [
    "BINS",
    "KINDS",
    "NO_TOKEN",
    "BatchRows",
    "CoFiring",
    "Facts",
    "FeatureCollector",
    "Features",
    "Firings",
    "Keeping",
    "Kind",
    "Label",
    "Patterns",
    "Places",
    "SampledRows",
    "TokenLatents",
    "automatic_labels",
    "co_firing",
    "layout",
    "nearest",
    "token_latents",
    "typical_patterns",
]
