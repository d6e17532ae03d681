"""Statistics of an activation store in one pass over it, in memory that does not grow with it.

Shapes: n rows of a chunk, d width of a hook point.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from tqdm.auto import tqdm

from datamodules.shards import RowStore

CHUNK_ROWS = 8192
OUTLIER_DEVIATIONS = 6.0
"""A dimension is an outlier when its mean or standard deviation is this many robust deviations from the median
dimension's.
"""
NORM_OUTLIER_RATIO = 10.0
"""A row is an outlier when its norm is more than this many times the median norm."""

_MANTISSA_BITS = 9
_SHIFT = 23 - _MANTISSA_BITS


class NormHistogram:
    """Counts of positive numbers in bins of equal relative width, 1/512: the leading bits of a float32 are its bin.

    A quantile is therefore right to 0.2%, whatever the numbers' size and count.
    """

    def __init__(self) -> None:
        self.counts = np.zeros(1 << (31 - _SHIFT), dtype=np.int64)
        self.smallest, self.largest, self.total = float("inf"), 0.0, 0.0

    def add(self, values: Tensor) -> None:
        """values: float32 [n], ≥ 0."""
        bins = values.numpy().view(np.int32) >> _SHIFT
        self.counts += np.bincount(bins, minlength=len(self.counts))
        self.smallest = min(self.smallest, float(values.min()))
        self.largest = max(self.largest, float(values.max()))
        self.total += float(values.sum(dtype=torch.float64))

    @property
    def size(self) -> int:
        """How many numbers were added."""
        return int(self.counts.sum())

    @property
    def mean(self) -> float:
        """Exact."""
        return self.total / self.size

    def quantile(self, share: float) -> float:
        """The middle of the bin below or in which this share of the numbers lies, within what was seen."""
        place = int(np.searchsorted(np.cumsum(self.counts), share * (self.size - 1), side="right"))
        middle = _edges(np.array([place, place + 1])).mean() if place else 0.0  # the first bin is that of 0
        return float(np.clip(middle, self.smallest, self.largest))

    def above(self, limit: float) -> int:
        """How many lie above a limit, to within the bin that it falls in."""
        first = int(np.float32(limit).view(np.int32)) >> _SHIFT
        return int(self.counts[first + 1 :].sum())

    def between(self, edges: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
        """Counts between ascending edges, each bin where its middle lies; int64 [len(edges) - 1]."""
        used = np.flatnonzero(self.counts)
        middles = (_edges(used) + _edges(used + 1)) / 2
        counts: npt.NDArray[np.int64] = np.histogram(middles, edges, weights=self.counts[used])[0].astype(np.int64)
        return counts


@dataclass
class DimensionMoments:
    """Mean and standard deviation of every dimension, from sums about a shift that is near the mean: sums about 0 would
    lose what matters of a dimension that is far out.
    """

    d: int
    rows: int = 0
    shift: Tensor = field(init=False)
    sums: Tensor = field(init=False)
    squares: Tensor = field(init=False)
    extremes: Tensor = field(init=False)
    """[d], the value of largest magnitude."""

    def __post_init__(self) -> None:
        self.sums, self.squares = (torch.zeros(self.d, dtype=torch.float64) for _ in range(2))
        self.extremes = torch.zeros(self.d)

    def add(self, x: Tensor) -> None:
        """x: float32 [n, d]."""
        if not self.rows:
            self.shift = x.mean(dim=0)
        centred = x - self.shift
        self.sums += centred.sum(dim=0, dtype=torch.float64)
        self.squares += centred.square().sum(dim=0, dtype=torch.float64)
        self.rows += len(x)
        low, high = torch.aminmax(x, dim=0)
        for candidate in (low, high):
            self.extremes = torch.where(candidate.abs() > self.extremes.abs(), candidate, self.extremes)

    @property
    def mean(self) -> Tensor:
        """float64 [d]."""
        return self.shift + self.sums / self.rows

    @property
    def std(self) -> Tensor:
        """float64 [d], over all rows."""
        return (self.squares / self.rows - (self.sums / self.rows).square()).clamp_min(0).sqrt()

    def deviations(self) -> Tensor:
        """float64 [d]: how far out a dimension is, by its mean or its standard deviation, whichever is farther."""
        return torch.maximum(_robust_deviations(self.mean), _robust_deviations(self.std))

    def outliers(self) -> list[int]:
        """The dimensions beyond `OUTLIER_DEVIATIONS`, farthest out first."""
        deviations = self.deviations()
        order = deviations.argsort(descending=True)
        return [int(dimension) for dimension in order if deviations[dimension] > OUTLIER_DEVIATIONS]


@dataclass
class StoreStatistics:
    """What one pass over a store has found."""

    rows: int
    """Rows that were read."""
    norms: dict[str, NormHistogram]
    moments: dict[str, DimensionMoments]
    tokens: npt.NDArray[np.int64]
    """[largest id + 1], how often each token id occurs among the rows that were read."""
    documents: int
    """Documents of the store that have rows."""


def gather_statistics(store: RowStore, sample_rows: int | None = None) -> StoreStatistics:
    """Reads a store once.

    Args:
        store: open.
        sample_rows: read about this many rows only, in stretches that are spread evenly; None reads all.
    """
    norms = {name: NormHistogram() for name in store.hook_points}
    moments = {name: DimensionMoments(d) for name, d in store.hook_points.items()}
    tokens = np.zeros(0, dtype=np.int64)
    rows = min(store.rows, sample_rows or store.rows)
    with tqdm(total=rows, unit=" rows", unit_scale=True, desc="Inspecting", leave=False) as bar:
        for chunk in _chunks(store.rows, rows):
            for name in store.hook_points:
                (x,) = store.read(chunk, [name])
                norms[name].add(torch.linalg.vector_norm(x, dim=1))
                moments[name].add(x)
            tokens = _added(tokens, np.bincount(store.provenance(chunk).tokens.numpy()))
            bar.update(len(chunk))
    ranges = store.document_ranges()
    return StoreStatistics(rows, norms, moments, tokens, int((ranges[:, 1] > ranges[:, 0]).sum()))


def _chunks(rows: int, sampled: int) -> Iterator[Tensor]:
    """Row numbers: `sampled` of `rows`, in stretches with even gaps between them."""
    stretches = -(-sampled // CHUNK_ROWS)
    for stretch in range(stretches):
        length = sampled * (stretch + 1) // stretches - sampled * stretch // stretches
        start = rows * stretch // stretches
        yield torch.arange(start, start + length)


def _added(a: npt.NDArray[np.int64], b: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The sum of two counts that may differ in length."""
    longer, shorter = (a, b) if len(a) >= len(b) else (b, a)
    total: npt.NDArray[np.int64] = longer.copy()
    total[: len(shorter)] += shorter
    return total


def _edges(bins: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """The least number of each bin."""
    leading: npt.NDArray[np.int32] = bins.astype(np.int32) << _SHIFT
    return leading.view(np.float32).astype(np.float64)


def _robust_deviations(values: Tensor) -> Tensor:
    """|v − median| / (1.4826 MAD) [d], which for a normal law are standard deviations, untouched by the outliers."""
    distances = (values - values.median()).abs()
    spread = 1.4826 * distances.median()
    return torch.where(distances > 0, distances / spread, distances)
