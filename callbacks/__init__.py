from callbacks.activation_writer import ActivationWriter
from callbacks.backup import Backup
from callbacks.calibration import Calibration, slowest
from callbacks.checkpoint_io import AtomicCheckpointIO, SaveOptions
from callbacks.checkpoint_retention import CheckpointRetention
from callbacks.collapse_alarm import CollapseAlarm
from callbacks.dead_neuron_resampling import DeadNeuronResampling
from callbacks.dictionary_recovery import DictionaryRecovery
from callbacks.difference_report import DifferenceReport
from callbacks.embedding_projector import EmbeddingModule, EmbeddingProjector
from callbacks.embedding_summary import EmbeddingSummary
from callbacks.ends_together import EndsTogether
from callbacks.extraction_progress import ExtractionProgress
from callbacks.feature_statistics import FeatureStatistics
from callbacks.forgetting_alarm import ForgettingAlarm
from callbacks.graceful_stop import GracefulStop, RunStopped
from callbacks.initial_weights import InitialWeights
from callbacks.latent_guide import LatentGuide
from callbacks.progress import TrainingProgress
from callbacks.random_states import RandomStates
from callbacks.run_record import RunRecordKeeper
from callbacks.run_summary import RunSummary
from callbacks.sample_predictions import SamplePredictions
from callbacks.save_checkpoints import SaveCheckpoints
from callbacks.spliced_evaluation import SplicedEvaluation
from callbacks.triplet_preview import TripletPreview

__all__ = [
    "ActivationWriter",
    "AtomicCheckpointIO",
    "Backup",
    "Calibration",
    "CheckpointRetention",
    "CollapseAlarm",
    "DeadNeuronResampling",
    "DictionaryRecovery",
    "DifferenceReport",
    "EmbeddingModule",
    "EmbeddingProjector",
    "EmbeddingSummary",
    "EndsTogether",
    "ExtractionProgress",
    "FeatureStatistics",
    "ForgettingAlarm",
    "GracefulStop",
    "InitialWeights",
    "LatentGuide",
    "RandomStates",
    "RunRecordKeeper",
    "RunStopped",
    "RunSummary",
    "SamplePredictions",
    "SaveCheckpoints",
    "SaveOptions",
    "SplicedEvaluation",
    "TrainingProgress",
    "TripletPreview",
    "slowest",
]
