"""All that is gathered of an autoencoder's latents while rows pass by once.

Shapes: b rows of a batch, s latents, n places of each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from features.entries import Entries
from features.hashing import uniform
from features.histograms import MagnitudeHistograms
from features.kept_places import KeptPlaces, Places
from features.row_sample import RowSample, SampledRows
from features.windows import BatchRows, Windows
from lightning_modules.functional import Codes


@dataclass(frozen=True)
class Keeping:
    """How much is kept of each latent.

    Attributes:
        strongest: places where it fires most.
        sampled: places drawn from all of its firings, each by the same chance.
        reach: rows on either side of a place whose values are kept.
        sampled_entries: entries of a uniform sample of rows, from which tokens and co-firing are counted.
    """

    strongest: int = 32
    sampled: int = 32
    reach: int = 16
    sampled_entries: int = 2**24

    @property
    def neighbours(self) -> int:
        """Rows on either side that a batch needs beside those that count."""
        return max(1, self.reach)


class Features(NamedTuple):
    """What was gathered of s latents, on the CPU. Magnitudes are |value|: a latent may have a sign."""

    rows: int
    """How many passed by."""
    counts: Tensor
    """int64 [s] on how many of them each latent fired."""
    sums: Tensor
    """float64 [s] of its magnitudes."""
    largest: Tensor
    """[s] of its magnitudes."""
    histogram: Tensor
    """int64 [s, BINS] of its magnitudes, in equal bins from 0."""
    bin_widths: Tensor
    """[s]; 0 where it has not fired."""
    strongest: Places
    """Where it fires most."""
    sampled: Places
    """A uniform sample of where it fires."""
    sample: SampledRows
    """A uniform sample of rows."""

    @property
    def density(self) -> Tensor:
        """[s] share of the rows on which each fired; 0 before any row has passed."""
        return self.counts / max(1, self.rows)

    @property
    def means(self) -> Tensor:
        """[s] mean magnitude where it fires; 0 where it never does."""
        return (self.sums / self.counts.clamp_min(1)).float()


class FeatureCollector:
    """Gathers in one pass what a person needs to understand latents. Only what fired is touched, and memory depends on
    the number of latents and on `keeping`, not on the number of rows.

    The result is the same however the rows are cut into batches, as long as each row is counted once and comes with
    its neighbours (`BatchRows.counted`); without them windows end where a batch ends.

    Args:
        d_sae: number of latents.
        keeping: how much is kept.
        watched: int64 [s], ascending: the latents that are looked at, which are counted as 0 to s − 1 from then on;
            all of them by default.
        device: where codes come from.

    Attributes:
        rows: how many have been counted.
    """

    def __init__(
        self,
        d_sae: int,
        keeping: Keeping | None = None,
        watched: Tensor | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self.keeping = keeping or Keeping()
        self._device = torch.device(device)
        self._watched = None if watched is None else watched.to(self._device)
        count = d_sae if watched is None else len(watched)
        window = 2 * self.keeping.reach + 1
        self.rows = 0
        self._counts = torch.zeros(count, dtype=torch.int64, device=self._device)
        self._sums = torch.zeros(count, dtype=torch.float64, device=self._device)
        self._histograms = MagnitudeHistograms(count, self._device)
        self._strongest = KeptPlaces(count, self.keeping.strongest, window, self._device)
        self._sampled = KeptPlaces(count, self.keeping.sampled, window, self._device)
        self._sample = RowSample(d_sae, self.keeping.sampled_entries)

    @torch.no_grad()
    def update(self, codes: Codes, rows: BatchRows) -> None:
        """Takes in a batch: its codes, and where its rows come from."""
        self._sample.update(codes, rows)
        every = self._looked_at(Entries.of(codes))
        windows = Windows(every, rows, self.keeping.reach)
        entries = every if bool(rows.counted.all()) else every.kept(rows.counted[every.places])
        self.rows += int(rows.counted.sum())
        self._counts += torch.bincount(entries.latents, minlength=len(self._counts))
        self._histograms.update(entries)
        magnitudes = entries.values.abs()
        self._sums.index_add_(0, entries.latents, magnitudes.double())
        self._strongest.update(entries, magnitudes, windows)
        self._sampled.update(entries, -uniform(rows.numbers[entries.places], entries.latents), windows)

    def _looked_at(self, entries: Entries) -> Entries:
        if self._watched is None:
            return entries
        number = torch.searchsorted(self._watched, entries.latents).clamp_max(len(self._watched) - 1)
        mask = self._watched[number] == entries.latents
        kept, latents = entries.kept(mask), number[mask]
        return kept._replace(latents=latents, keys=latents * entries.batch + kept.places)

    def features(self) -> Features:
        """What has been gathered so far."""
        return Features(
            self.rows,
            self._counts.cpu(),
            self._sums.cpu(),
            self._histograms.largest.cpu(),
            self._histograms.counts.cpu(),
            self._histograms.widths.cpu(),
            Places(*(part.cpu() for part in self._strongest.places)),
            Places(*(part.cpu() for part in self._sampled.places)),
            self._sample.rows(),
        )
