from lightning_modules.functional.codes import Codes, DenseCodes, SparseCodes
from lightning_modules.functional.reconstruction import (
    fraction_of_variance_unexplained,
    geometric_median,
    squared_error,
)
from lightning_modules.functional.schedules import trapezoid
from lightning_modules.functional.sparse import linear_topk, sparse_decode

__all__ = [
    "Codes",
    "DenseCodes",
    "SparseCodes",
    "fraction_of_variance_unexplained",
    "geometric_median",
    "linear_topk",
    "sparse_decode",
    "squared_error",
    "trapezoid",
]
