"""Rows without end, each a function of its number and the settings alone.

That makes everything else simple: an epoch, a batch, a rank's part and a held-out split are ranges of row numbers, a
resumed run needs no more state than a cursor, and no row is ever stored.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from datamodules.synthetic.firing import FiringModel
from datamodules.synthetic.truth import FeatureSettings, Truth, make_truth

TILE = 256
"""Rows that are drawn together. Part of what a row's number means: another tile size gives other rows."""

_ROWS = 3
"""The seed's stream for rows, beside those that `make_truth` draws from."""


class Tile(NamedTuple):
    """TILE consecutive rows; k is the number of features that fire in them, row after row."""

    activations: Tensor
    """float32 [TILE, d]."""
    rows: Tensor
    """int64 [k]: row within the tile, ascending."""
    features: Tensor
    """int64 [k]: what fires there."""
    magnitudes: Tensor
    """float32 [k]: how strongly."""


class SyntheticStream:
    """Row `i` is Σ_j f_ij atom_j + bias + noise, where f_ij is the magnitude of feature j if it fires in row i, else 0.

    Numpy promises the same random bits in every release, but not the same normals: the same rows need the same numpy.

    Args:
        settings: of the features.

    Raises:
        UserError: the settings contradict each other.
    """

    def __init__(self, settings: FeatureSettings) -> None:
        self.settings = settings
        self.truth: Truth = make_truth(settings)
        self._firing = FiringModel(
            self.truth.probabilities.numpy(),
            self.truth.parents.numpy(),
            self.truth.groups.numpy(),
            settings.correlation.correlation if settings.correlation else 0.0,
        )
        self._last: tuple[int, Tile] | None = None

    def read(self, rows: Tensor, hook_points: object = None) -> tuple[Tensor]:
        """Activations of rows, int64 [b]: float32 [b, d]. There is one hook point, whatever it is called."""
        result = torch.empty(len(rows), self.settings.d)
        for number, here, within in _by_tile(rows):
            result[here] = self.tile(number).activations[within]
        return (result,)

    def codes(self, rows: Tensor) -> Tensor:
        """The true magnitudes of rows, int64 [b]: float32 [b, n], 0 where a feature does not fire."""
        result = torch.empty(len(rows), self.settings.count)
        for number, here, within in _by_tile(rows):
            tile = self.tile(number)
            dense = torch.zeros(TILE, self.settings.count)
            dense[tile.rows, tile.features] = tile.magnitudes
            result[here] = dense[within]
        return result

    def tile(self, number: int) -> Tile:
        """Rows number · TILE to (number + 1) · TILE - 1. The last one is remembered: small batches share it."""
        if self._last is None or self._last[0] != number:
            self._last = number, self._draw(np.random.default_rng([self.settings.seed, _ROWS, number]))
        return self._last[1]

    def _draw(self, generator: np.random.Generator) -> Tile:
        fires = self._firing.draw(TILE, generator)
        rows, features = (torch.from_numpy(places) for places in np.nonzero(fires))
        magnitudes = torch.from_numpy(self.settings.law.draw(len(rows), generator))
        starts = torch.from_numpy(np.concatenate([[0], np.cumsum(fires.sum(axis=1))[:-1]]))
        # sums each row by itself, feature after feature: the same bits on any number of threads
        activations = embedding_bag(features, self.truth.atoms, starts, mode="sum", per_sample_weights=magnitudes).add_(
            self.truth.bias
        )
        if self.settings.noise:
            noise = generator.standard_normal(activations.shape, dtype=np.float32)
            activations.add_(torch.from_numpy(noise), alpha=self.settings.noise)
        return Tile(activations, rows, features, magnitudes)


@dataclass(frozen=True)
class EndlessOrder:
    """Which rows of the stream an epoch visits: `size` new ones every time, from `first` on, in order.

    Nothing has to be shuffled, because neighbours have nothing in common.
    """

    first: int
    size: int
    seed: int
    block_rows: int = TILE
    mixed_shards: int = 0

    def rows(self, epoch: int, start: int, stop: int) -> Tensor:
        """int64 [stop - start]: the rows at places `start` to `stop` - 1 of an epoch."""
        begin = self.first + epoch * self.size
        return torch.arange(begin + start, begin + stop)


def _by_tile(rows: Tensor) -> list[tuple[int, Tensor, Tensor]]:
    """(tile, places in `rows` [m], rows within the tile [m]) for every tile that `rows` touch."""
    tiles, within = rows // TILE, rows % TILE
    places = [(int(tile), (tiles == tile).nonzero().flatten()) for tile in np.unique(tiles.numpy())]
    return [(tile, here, within[here]) for tile, here in places]
