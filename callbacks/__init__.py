from callbacks.activation_writer import ActivationWriter
from callbacks.checkpoint_io import AtomicCheckpointIO
from callbacks.feature_statistics import FeatureStatistics
from callbacks.last_checkpoint import LastCheckpoint
from callbacks.progress import TrainingProgress
from callbacks.run_summary import RunSummary

__all__ = [
    "ActivationWriter",
    "AtomicCheckpointIO",
    "FeatureStatistics",
    "LastCheckpoint",
    "RunSummary",
    "TrainingProgress",
]
