"""Answers of one moment as a text in Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from callbacks.markdown import escaped
from lightning_modules.predictions import Answer

CHARACTERS = 400
"""Shown of a line."""


def prediction_text(answers: Sequence[Answer]) -> str:
    """A section for each answer: what has one line stands behind its head, what has several is a list below it.

    Not a table: TensorBoard breaks words in cells, so a long text leaves a column of numbers a letter or two of width.
    """
    return "\n\n".join(block for answer in answers for block in _section(answer))


def _section(answer: Answer) -> Iterator[str]:
    yield f"### sample {answer.sample.index}"
    for head, lines in answer.shown.items():
        cut = [_cut(line) for line in lines]
        if len(cut) == 1:
            yield f"**{escaped(head)}** {cut[0]}"
        elif cut:
            yield "\n".join([f"**{escaped(head)}**", "", *(f"- {line}" for line in cut)])


def _cut(line: str) -> str:
    return escaped(line if len(line) <= CHARACTERS else f"{line[: CHARACTERS - 1]}…")
