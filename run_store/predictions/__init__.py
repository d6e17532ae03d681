from run_store.predictions.buffered import BufferedPredictions
from run_store.predictions.records import (
    STORE_NAME,
    EpochSummary,
    Prediction,
    RunEntry,
    entry_of,
    job_id,
    job_user_id,
    store_path,
    store_path_of,
)
from run_store.predictions.store import PredictionStore, delete_predictions_of

__all__ = [
    "STORE_NAME",
    "BufferedPredictions",
    "EpochSummary",
    "Prediction",
    "PredictionStore",
    "RunEntry",
    "delete_predictions_of",
    "entry_of",
    "job_id",
    "job_user_id",
    "store_path",
    "store_path_of",
]
