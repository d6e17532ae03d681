"""Text in columns on a terminal, which gives some characters two cells."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence

GAP = "  "
_NARROWEST = 12


def visible(text: str) -> str:
    """The text on one line, with nothing in it that a terminal obeys."""
    if text.isprintable():
        return text
    return "".join(_shown(character) for character in text)


def cells(text: str) -> int:
    """How many cells a terminal gives to what is printable."""
    return len(text) if text.isascii() else sum(map(_cells_of, text))


def cut(text: str, width: int) -> str:
    """The text in at most `width` cells, with … where some is missing."""
    return text if cells(text) <= width else _beginning(text, width - 1) + "…"


def wrapped(text: str, width: int) -> list[str]:
    """The text in lines of at most `width` ≥ 2 cells, broken at spaces where there are some; at least one line."""
    lines = []
    while cells(text) > width:
        piece = _beginning(text, width)
        at = len(piece) if text[len(piece)] == " " else piece.rfind(" ") + 1
        at = at or len(piece)
        lines.append(text[:at].rstrip())
        text = text[at:].lstrip()
    return [*lines, text]


def filled(text: str, width: int) -> str:
    """The text with spaces behind it up to `width` cells."""
    return text + " " * (width - cells(text))


def table(header: Sequence[str], rows: Sequence[Sequence[str]], width: int, elastic: int = 0) -> Iterator[str]:
    """Lines of a table.

    Args:
        header: the names of the columns.
        rows: their texts.
        width: cells in a line.
        elastic: so many of the last columns share the cells that the others leave, and are cut to that.
    """
    lines = [list(header), *([visible(text) for text in row] for row in rows)]
    widths = [max(cells(line[column]) for line in lines) for column in range(len(header))]
    fixed = len(widths) - elastic
    left = width - sum(widths[:fixed]) - len(GAP) * (len(widths) - 1)
    for column in range(fixed, len(widths)):
        widths[column] = min(widths[column], max(_NARROWEST, left // (len(widths) - column)))
        left -= widths[column]
    for line in lines:
        yield GAP.join(filled(cut(text, most), most) for text, most in zip(line, widths, strict=True)).rstrip()


def _beginning(text: str, width: int) -> str:
    used = 0
    for index, character in enumerate(text):
        used += _cells_of(character)
        if used > width:
            return text[:index]
    return text


def _cells_of(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def _shown(character: str) -> str:
    if character == "\n":
        return "⏎"
    if character.isspace():
        return " "
    return character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
