"""Which nested prefixes of the latents reconstruct by themselves.

Shapes: s = d_sae, n prefixes of a batch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from run_store import UserError

DEFAULT_SHARES = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)

UNITS = 2**31

GOLDEN = round(UNITS * (math.sqrt(5) - 1) / 2)
"""Multiples of the golden ratio, modulo 1, fill the unit interval evenly from the first on; here in units of 2⁻³¹, so
that they are exact however long the run is."""


class FixedPrefixes(nn.Module):
    """The same for every batch.

    Args:
        d_sae: number of latents.
        lengths: shares of d_sae if none is above 1, or else numbers of latents.
    """

    lengths: Tensor
    fvu: Tensor

    def __init__(self, d_sae: int, lengths: Sequence[float]) -> None:
        super().__init__()
        self.d_sae = d_sae
        self.given = tuple(lengths)

    @property
    def counts(self) -> list[float]:
        """Latents of each."""
        shares = max(self.given, default=0) <= 1
        return [round(length * self.d_sae) if shares else length for length in self.given]

    def check(self) -> None:
        """Refuses what are no nested prefixes.

        Raises:
            UserError: they do not rise, do not end at d_sae, or one has less than 1 latent or a part of one.
        """
        counts = self.counts
        rising = all(one < other for one, other in zip([0, *counts], counts, strict=False))
        whole = all(count >= 1 and count == int(count) for count in counts)
        if not (counts and rising and whole and counts[-1] == self.d_sae):
            raise UserError(
                f"prefixes is {list(self.given)} and d_sae is {self.d_sae}: give rising shares up to 1, or rising "
                "numbers of latents up to d_sae, each of at least 1 latent"
            )

    def build(self) -> None:
        """Makes the buffers; to be called after `check`."""
        self.register_buffer("lengths", torch.tensor([int(count) for count in self.counts]), persistent=False)
        self.register_buffer("fvu", torch.zeros(len(self.given)), persistent=False)

    def ends(self) -> Tensor:
        """[n] int64, ascending up to s: latents of each prefix of the batch at hand."""
        return self.lengths

    def advance(self) -> None:
        """To be called after every batch."""

    def note(self, fvu: Tensor) -> None:
        """Takes in how well each prefix [n] reconstructed the batch at hand."""
        self.fvu.copy_(fvu)

    def gauges(self) -> dict[str, Tensor]:
        """FVU of each prefix, by name."""
        return {f"fvu_of_{int(count)}": fvu for count, fvu in zip(self.counts, self.fvu, strict=True)}


class SampledPrefixes(nn.Module):
    """Others for every batch, drawn log-uniformly, and s beside them.

    Args:
        d_sae: number of latents.
        drawn: n − 1.
        shortest: how many latents they have at least; a share of d_sae if it is at most 1.
    """

    batches: Tensor

    def __init__(self, d_sae: int, drawn: int, shortest: float) -> None:
        super().__init__()
        self.d_sae = d_sae
        self.drawn = drawn
        self.shortest = shortest

    @property
    def least(self) -> float:
        """The shortest one's number of latents."""
        return max(1.0, self.shortest * self.d_sae) if self.shortest <= 1 else self.shortest

    def check(self) -> None:
        """Refuses a range without any prefix.

        Raises:
            UserError: the shortest is longer than d_sae, or not above 0.
        """
        if not 0 < self.shortest <= self.d_sae:
            raise UserError(
                f"shortest_prefix is {self.shortest} and d_sae is {self.d_sae}: give a share of d_sae up to 1, or a "
                "number of latents up to d_sae"
            )

    def build(self) -> None:
        """Makes the counter of batches, which is state."""
        self.register_buffer("batches", torch.zeros((), dtype=torch.int64))

    def ends(self) -> Tensor:
        """[n] int64, ascending up to s: latents of each prefix of the batch at hand. Two may be equal."""
        number = self.batches * self.drawn + torch.arange(1, self.drawn + 1, device=self.batches.device)
        uniform = (number % UNITS * GOLDEN % UNITS).double() / UNITS
        lengths = (self.least * (self.d_sae / self.least) ** uniform).ceil().long().clamp(1, self.d_sae)
        return torch.cat([lengths.sort().values, lengths.new_full((1,), self.d_sae)])

    def advance(self) -> None:
        """To be called after every batch."""
        if self.training:
            self.batches += 1

    def note(self, fvu: Tensor) -> None:
        """Nothing: no two batches have the same prefixes."""

    def gauges(self) -> dict[str, Tensor]:
        """None."""
        return {}
