"""What a source of triplets is: checked examples in a fixed order."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, NamedTuple

from datamodules.text.bad_rows import BadRowAction, BadRows, text_fault
from run_store import UserError


class Example(NamedTuple):
    """An anchor, what it should be near to, and what it should be far from."""

    anchor: str
    positive: str
    negatives: tuple[str, ...] = ()
    score: float | tuple[float, ...] | None = None
    """A number for how similar anchor and positive are said to be, or a tuple of what a teacher says of the positive
    and of each negative."""
    group: str | None = None
    """Examples of one group are never apart: all are trained on, or all held out."""
    place: str = ""
    """Where it is written, as `file:line`, for messages."""


class TripletSource(ABC):
    """Examples in an order that is the same at every call.

    Attributes:
        bad_rows: `refuse` raises at the first bad row, `skip` goes on without it.
    """

    bad_rows: BadRowAction = "refuse"

    @abstractmethod
    def read(self, bad: BadRows) -> Iterator[Example]:
        """Yields examples whose texts are still to be checked; tells `bad` of rows that give none."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """The settings that decide what is read, as plain JSON values."""

    @abstractmethod
    def fingerprint(self) -> str:
        """Hexadecimal sha256 of what is behind the settings, such as the bytes of the files."""

    def examples(self, bad: BadRows) -> Iterator[Example]:
        """Yields the examples that can be trained on.

        Args:
            bad: is told of all others.

        Raises:
            UserError: a row is bad and those are refused, or there is no good one.
        """
        first: Example | None = None
        for example in self.read(bad):
            fault = fault_of(example) or _differs(example, first)
            if fault is not None:
                bad.met(example.place, fault)
                continue
            first = first or example
            yield example
        if first is None:
            raise UserError(
                f"{type(self).__name__} gives no example ({_in_words(self.describe())}): check its settings"
            )


def fault_of(example: Example) -> str | None:
    """What keeps an example from being trained on, as the rest of a sentence about its row; None for nothing.

    Texts that differ in nothing but white space around them count as equal.
    """
    texts = [("anchor", example.anchor), ("positive", example.positive)]
    texts += [("negative", negative) for negative in example.negatives]
    for role, text in texts:
        fault = text_fault(text, role)
        if fault is not None:
            return fault
        if not text.strip():
            return f"has an empty {role}"
    anchor, positive, *negatives = (text.strip() for _, text in texts)
    if anchor == positive:
        return "has an anchor equal to its positive"
    if positive in negatives:
        return "has a negative equal to its positive"
    if anchor in negatives:
        return "has a negative equal to its anchor"
    if len(set(negatives)) < len(negatives):
        return "has the same negative twice"
    return _fault_of_score(example)


def _fault_of_score(example: Example) -> str | None:
    score, negatives = example.score, len(example.negatives)
    if isinstance(score, tuple) and len(score) != 1 + negatives:
        return f"has {negatives} negative{'s' * (negatives != 1)} and scores for {len(score) - 1}"
    numbers = score if isinstance(score, tuple) else () if score is None else (score,)
    unusable = [number for number in numbers if not math.isfinite(number)]
    return f"has the score {unusable[0]}, which is no finite number" if unusable else None


def _differs(example: Example, first: Example | None) -> str | None:
    if first is None or type(example.score) is type(first.score):
        return None
    return "has a score where the first has none" if first.score is None else "has no score where the first has one"


def _in_words(settings: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in settings.items() if name != "class")
