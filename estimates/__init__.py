from estimates.forecast import Forecast, Part, forecast
from estimates.measured import Extraction, Measured, Streaming
from estimates.refusal import Limits, refusals
from estimates.schedule import Counts, Schedule, counted

__all__ = [
    "Counts",
    "Extraction",
    "Forecast",
    "Limits",
    "Measured",
    "Part",
    "Schedule",
    "Streaming",
    "counted",
    "forecast",
    "refusals",
]
