"""What happens to rows that cannot be read: the first stops everything, or all are counted."""

from __future__ import annotations

from typing import Literal

from lightning.pytorch.utilities import rank_zero_info

from run_store import UserError

BadRowAction = Literal["refuse", "skip"]


class BadRows:
    """Counts what is wrong with the rows of one reading of a corpus.

    Args:
        action: `refuse` raises at the first bad row, `skip` goes on without it.
        of: What the rows hold, for messages.
    """

    def __init__(self, action: BadRowAction, of: str = "text") -> None:
        self.action = action
        self.of = of
        self.count = 0
        self._first = ""

    def met(self, place: str, fault: str) -> None:
        """Call it for every bad row.

        Args:
            place: The file and 1-based line, as `path:line`.
            fault: What is wrong, as the rest of a sentence about the row.

        Raises:
            UserError: bad rows are refused.
        """
        if self.action == "refuse":
            raise UserError(f"{place} {fault}: mend it there, or set bad_rows: skip to do without such rows")
        self._first = self._first or f"{place} {fault}"
        self.count += 1

    def tell(self) -> None:
        """Says how many rows were left out, and why the first was."""
        if self.count:
            rows = f"{self.count:,} bad row{'s'[: self.count - 1]} of {self.of}"
            rank_zero_info(f"Left out {rows}; the first: {self._first}.")


def text_fault(value: object, field: str) -> str | None:
    """What keeps a value from being a document's text, or None."""
    if not isinstance(value, str):
        kind = "null" if value is None else type(value).__name__
        return f"holds {kind} in the field {field!r}, not text"
    try:
        value.encode()
    except UnicodeEncodeError as error:  # JSON can spell one, and no file could hold it
        return f"holds half of a surrogate pair in the field {field!r} ({value[error.start]!r})"
    return None
