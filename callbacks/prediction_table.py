"""Answers of one moment as a table."""

from __future__ import annotations

from collections.abc import Sequence

from callbacks.markdown import escaped
from lightning_modules.predictions import Answer

CHARACTERS = 400
"""Shown of a line."""


def prediction_table(answers: Sequence[Answer]) -> str:
    """A Markdown table with a row for each answer; a column that an answer does not have is empty there."""
    heads = list(dict.fromkeys(head for answer in answers for head in answer.shown))
    lines = [_row(["sample", *map(escaped, heads)]), _row(["---"] * (1 + len(heads)))]
    for answer in answers:
        cells = ["<br>".join(_cut(line) for line in answer.shown.get(head, ())) for head in heads]
        lines.append(_row([str(answer.sample.index), *cells]))
    return "\n".join(lines)


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cut(line: str) -> str:
    return escaped(line if len(line) <= CHARACTERS else f"{line[: CHARACTERS - 1]}…")
