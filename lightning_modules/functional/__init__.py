from lightning_modules.functional.codes import Codes, DenseCodes, SparseCodes
from lightning_modules.functional.reconstruction import (
    Spread,
    fraction_of_variance_unexplained,
    geometric_median,
    squared_error,
)
from lightning_modules.functional.recovery import Matching, best_matching, max_cosines
from lightning_modules.functional.schedules import trapezoid
from lightning_modules.functional.sparse import linear_batch_topk, linear_topk, sparse_decode

__all__ = [
    "Codes",
    "DenseCodes",
    "Matching",
    "SparseCodes",
    "Spread",
    "best_matching",
    "fraction_of_variance_unexplained",
    "geometric_median",
    "linear_batch_topk",
    "linear_topk",
    "max_cosines",
    "sparse_decode",
    "squared_error",
    "trapezoid",
]
