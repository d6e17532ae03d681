from tracking.mlflow_tracker import MLflowTracker
from tracking.run_csv_logger import RunCSVLogger
from tracking.tracker import Tracker
from tracking.wandb_tracker import WandbTracker

__all__ = ["MLflowTracker", "RunCSVLogger", "Tracker", "WandbTracker"]
