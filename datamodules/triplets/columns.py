"""Which columns of a row are whose texts and numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from datamodules.text.bad_rows import text_fault
from datamodules.triplets.source import Example
from run_store import UserError


class BadFieldError(Exception):
    """The rest of a sentence about a row."""


@dataclass(frozen=True)
class TripletColumns:
    """The names of a row's columns (fields, in JSON lines).

    Args:
        anchor: Holds the text that is looked up by: a query, a question, a sentence.
        positive: Holds the text that should be found.
        negatives: Each holds a text that should not be found, or a list of them; empty for pairs.
        score: Holds how similar anchor and positive are said to be, or with `negative_scores` what a teacher says of
            the positive; null for data without.
        negative_scores: What a teacher says of the negatives: for each column of `negatives` one that holds a number,
            or a list of them.
        group: Holds text or a whole number; rows that share it are held out together. Null: the anchor's text.
    """

    anchor: str = "anchor"
    positive: str = "positive"
    negatives: list[str] = field(default_factory=lambda: ["negative"])
    score: str | None = None
    negative_scores: list[str] = field(default_factory=list)
    group: str | None = None

    def settings(self) -> dict[str, str]:
        """By name of a column the setting that asks for it.

        Raises:
            UserError: two settings name one column, or scores lack their counterparts.
        """
        named = list(self._named())
        twice = [column for column, count in Counter(column for column, _ in named).items() if count > 1]
        if twice:
            both = " and ".join(setting for column, setting in named if column == twice[0])
            raise UserError(f"{both} both name the column {twice[0]!r}: give each its own")
        if self.negative_scores and (self.score is None or len(self.negative_scores) != len(self.negatives)):
            raise UserError(
                "columns.negative_scores needs columns.score for the positive and as many names as columns.negatives "
                f"has ({len(self.negatives)}): set both, or leave it empty"
            )
        return dict(named)

    def example(self, values: Sequence[Any], place: str) -> Example:
        """A row as an example.

        Args:
            values: what the columns of `settings` hold, in that order.
            place: the file and line of the row.

        Raises:
            BadFieldError: a column holds something of another kind.
        """
        row = dict(zip((column for column, _ in self._named()), values, strict=True))
        return Example(
            _text(row[self.anchor], self.anchor),
            _text(row[self.positive], self.positive),
            tuple(_text(value, column) for column in self.negatives for value in _each(row[column])),
            self._score(row),
            None if self.group is None else _name(row[self.group], self.group),
            place,
        )

    def _score(self, row: Mapping[str, Any]) -> float | tuple[float, ...] | None:
        if self.score is None:
            return None
        score = _number(row[self.score], self.score)
        columns = self.negative_scores
        negatives = [_number(value, column) for column in columns for value in _each(row[column])]
        return (score, *negatives) if columns else score

    def _named(self) -> Iterator[tuple[str, str]]:
        """(column, setting) of every column that is read."""
        yield self.anchor, "columns.anchor"
        yield self.positive, "columns.positive"
        yield from ((column, "columns.negatives") for column in self.negatives)
        if self.score is not None:
            yield self.score, "columns.score"
        yield from ((column, "columns.negative_scores") for column in self.negative_scores)
        if self.group is not None:
            yield self.group, "columns.group"


USUAL_COLUMNS = TripletColumns()


def _each(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list) else [value]


def _text(value: Any, column: str) -> str:
    fault = text_fault(value, column)
    if fault is not None:
        raise BadFieldError(fault)
    return str(value)


def _name(value: Any, column: str) -> str:
    return str(value) if type(value) is int else _text(value, column)


def _number(value: Any, column: str) -> float:
    if not isinstance(value, (int, float, str)) or isinstance(value, bool):
        kind = "null" if value is None else type(value).__name__
        raise BadFieldError(f"holds {kind} in the field {column!r}, not a number")
    try:
        return float(value)  # comma-separated values are all text
    except (ValueError, OverflowError):
        raise BadFieldError(f"holds {str(value)[:40]!r} in the field {column!r}, not a number") from None
