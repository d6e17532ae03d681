"""What a check found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """Something measured, and what it may be.

    Attributes:
        name: What was measured.
        value: A number, several of them, or a word.
        unit: Of the value.
        at_most: The limit that a number may not exceed.
        at_least: The limit that a number must reach.
        setting: Which setting the limit is, if it is one.
    """

    name: str
    value: float | str | tuple[float, ...]
    unit: str = ""
    at_most: float | None = None
    at_least: float | None = None
    setting: str | None = None

    @property
    def failure(self) -> str | None:
        """What is wrong with it, as a sentence; None for nothing. A number that is none fails every limit."""
        if not isinstance(self.value, int | float):
            return None
        limit = self.setting or "the limit"
        if self.at_most is not None and not self.value <= self.at_most:
            return f"{self.name} is {self.shown}, more than {limit} {self.at_most:g}"
        if self.at_least is not None and not self.value >= self.at_least:
            return f"{self.name} is {self.shown}, less than {limit} {self.at_least:g}"
        return None

    @property
    def shown(self) -> str:
        """The value with its unit."""
        if isinstance(self.value, tuple):
            return " ".join(f"{value:6.3f}" for value in self.value)
        value = f"{self.value:.4g}" if isinstance(self.value, float) else str(self.value)
        return f"{value} {self.unit}".rstrip()


@dataclass(frozen=True)
class Verdict:
    """What one part of the suite found.

    Attributes:
        part: Its name.
        figures: What it measured.
        failures: A sentence for each thing that is wrong.
        ran: Whether it could be carried out at all.
    """

    part: str
    figures: tuple[Figure, ...]
    failures: tuple[str, ...]
    ran: bool = True

    @classmethod
    def of(cls, part: str, figures: Sequence[Figure], failures: Sequence[str] = ()) -> Verdict:
        """What is wrong with the figures joins what is wrong besides."""
        broken = [figure.failure for figure in figures if figure.failure is not None]
        return cls(part, tuple(figures), (*failures, *broken))

    @classmethod
    def not_run(cls, part: str, reason: str) -> Verdict:
        """A part that could not be carried out counts as one that failed."""
        return cls(part, (), (f"not run: {reason}",), ran=False)

    @property
    def passed(self) -> bool:
        """Whether it was carried out and nothing is wrong."""
        return self.ran and not self.failures
