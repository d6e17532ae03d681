from lightning_modules.metrics.firing import DENSE_ABOVE, FiringDensity, log_density, summarize_density
from lightning_modules.metrics.reconstruction import FractionOfVarianceUnexplained

__all__ = ["DENSE_ABOVE", "FiringDensity", "FractionOfVarianceUnexplained", "log_density", "summarize_density"]
