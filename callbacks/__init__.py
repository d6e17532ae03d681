from callbacks.activation_writer import ActivationWriter
from callbacks.checkpoint_io import AtomicCheckpointIO
from callbacks.dictionary_recovery import DictionaryRecovery
from callbacks.extraction_progress import ExtractionProgress
from callbacks.feature_statistics import FeatureStatistics
from callbacks.last_checkpoint import LastCheckpoint
from callbacks.progress import TrainingProgress
from callbacks.run_summary import RunSummary

__all__ = [
    "ActivationWriter",
    "AtomicCheckpointIO",
    "DictionaryRecovery",
    "ExtractionProgress",
    "FeatureStatistics",
    "LastCheckpoint",
    "RunSummary",
    "TrainingProgress",
]
