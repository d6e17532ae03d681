"""What may be asked of the index, as SQL."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

Order = Literal["newest", "oldest", "changed", "most_steps", "fewest_steps", "name"]

_ORDERS: dict[Order, str] = {
    "newest": "created DESC, id DESC, place",
    "oldest": "created, id, place",
    "changed": "changed DESC, id, place",
    "most_steps": "step DESC, created DESC, id DESC, place",
    "fewest_steps": "step, created DESC, id DESC, place",
    "name": "name, created DESC, id DESC, place",
}


@dataclass(frozen=True)
class RunQuery:
    """Which runs, and in which order.

    Attributes:
        name, model, dataset: as they were given to the run.
        status: as of now.
        tags: all of which a run must have.
        order: newest and oldest go by creation, changed by the last change of the record.
        limit: runs on the page; None for all that are left.
        offset: runs to pass over first.

    Raises:
        ValueError: limit or offset is negative.
    """

    name: str | None = None
    model: str | None = None
    dataset: str | None = None
    status: str | None = None
    tags: tuple[str, ...] = ()
    order: Order = "newest"
    limit: int | None = None
    offset: int = 0

    def __post_init__(self) -> None:
        if self.offset < 0 or (self.limit is not None and self.limit < 0):
            raise ValueError(f"limit {self.limit} and offset {self.offset} count runs")

    def where(self, lost: Sequence[str]) -> tuple[str, list[Any]]:
        """The condition and its values.

        Args:
            lost: places of runs whose record says that a process is at work, and none is.
        """
        text, values = self.where_but_status()
        if self.status is not None:
            text += " AND CASE WHEN place IN (SELECT value FROM json_each(?)) THEN 'interrupted' ELSE status END = ?"
            values += [json.dumps(list(lost)), self.status]
        return text, values

    def where_but_status(self) -> tuple[str, list[Any]]:
        """The condition whatever the status is, and its values. Damaged runs fulfil none."""
        asked = {"name": self.name, "model": self.model, "dataset": self.dataset}
        given = {name: value for name, value in asked.items() if value is not None}
        parts = ["id != ''", *(f"{name} = ?" for name in given)]
        parts += ["? IN (SELECT value FROM json_each(tags))" for _ in self.tags]
        return " AND ".join(parts), [*given.values(), *self.tags]

    def page(self) -> tuple[str, list[Any]]:
        """Order and page, and their values."""
        return f"ORDER BY {_ORDERS[self.order]} LIMIT ? OFFSET ?", [
            -1 if self.limit is None else self.limit,
            self.offset,
        ]
