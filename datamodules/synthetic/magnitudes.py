"""How strongly a feature is present where it fires; one law a class, so that a new one is a new class."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
import numpy.typing as npt
from jsonargparse.typing import NonNegativeFloat, PositiveFloat

Drawn = npt.NDArray[np.float32]


class Magnitudes(ABC):
    """Template: positive numbers, each drawn by itself."""

    @abstractmethod
    def draw(self, count: int, generator: np.random.Generator) -> Drawn:
        """float32 [count], > 0 (almost surely)."""


class Constant(Magnitudes):
    """Always the same.

    Args:
        value: The magnitude.
    """

    def __init__(self, value: PositiveFloat = 1.0) -> None:
        self.value = value

    def draw(self, count: int, generator: np.random.Generator) -> Drawn:
        return np.full(count, self.value, dtype=np.float32)


class Exponential(Magnitudes):
    """Exponential: many small ones.

    Args:
        mean: Of the magnitudes.
    """

    def __init__(self, mean: PositiveFloat = 1.0) -> None:
        self.mean = mean

    def draw(self, count: int, generator: np.random.Generator) -> Drawn:
        drawn: Drawn = np.float32(self.mean) * generator.standard_exponential(count, dtype=np.float32)
        return drawn


class HalfNormal(Magnitudes):
    """|N(0, scale²)|, of mean scale · sqrt(2/π).

    Args:
        scale: Standard deviation of the normal before its sign is dropped.
    """

    def __init__(self, scale: PositiveFloat = 1.0) -> None:
        self.scale = scale

    def draw(self, count: int, generator: np.random.Generator) -> Drawn:
        drawn: Drawn = np.abs(np.float32(self.scale) * generator.standard_normal(count, dtype=np.float32))
        return drawn


class LogNormal(Magnitudes):
    """median · exp(N(0, sigma²)): few near 0.

    Args:
        median: Of the magnitudes.
        sigma: Standard deviation of their logarithm.
    """

    def __init__(self, median: PositiveFloat = 1.0, sigma: NonNegativeFloat = 0.5) -> None:
        self.median = median
        self.sigma = sigma

    def draw(self, count: int, generator: np.random.Generator) -> Drawn:
        logarithms = np.float32(self.sigma) * generator.standard_normal(count, dtype=np.float32)
        drawn: Drawn = np.float32(self.median) * np.exp(logarithms)
        return drawn
