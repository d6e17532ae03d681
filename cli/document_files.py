"""Documents to rank, from files or from the command line."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from cli.triplet_configs import triplets_of
from run_store import Split, UserError

FIELDS = ("text", "document", "positive")
LINES = (".jsonl", ".ndjson")


class GivenDocument(NamedTuple):
    """A text and where it is from, in words."""

    text: str
    source: str


def read_documents(
    files: Sequence[str], texts: Sequence[str] = (), triplets: str | None = None, split: Split = "test"
) -> list[GivenDocument]:
    """Every document, those of files first, those of triplets last.

    Args:
        files: text files with a document a line, where blank lines are passed over, or JSONL files whose rows have it
            under `text`, `document` or `positive`.
        texts: documents by themselves.
        triplets: a file of settings, as of configs/triplets: their different positives and negatives.
        split: the part of the triplets that is meant.

    Raises:
        UserError: a file is not there, not UTF-8, has no document, or a line that is none; a text is empty; or nothing
            is given.
    """
    given = [document for file in files for document in _of_file(Path(file).expanduser())]
    for number, text in enumerate(texts, start=1):
        if fault := text_fault(text):
            raise UserError(f"document: number {number} {fault}: give it a text, or leave it out")
        given.append(GivenDocument(text, f"--document {number}"))
    given += _of_triplets(triplets, split) if triplets is not None else []
    if not given:
        raise UserError(
            "documents: name a file with some by --documents FILE, or triplets by --triplets FILE, or give each by "
            "--document TEXT"
        )
    return given


def text_fault(text: str) -> str | None:
    """What keeps a text from being read by a model, in words, or None."""
    if not text.strip():
        return "is empty"
    try:
        text.encode()
    except UnicodeEncodeError:  # JSON can spell it, and Python makes it of bytes of a command line that are not UTF-8
        return "holds half of a surrogate pair, which is no text"
    return None


def _of_triplets(config: str, split: Split) -> list[GivenDocument]:
    from datamodules.triplet_texts import examples_of

    found: dict[str, str] = {}
    for number, example in examples_of(triplets_of(config), split):
        for text in (example.positive, *example.negatives):
            found.setdefault(text, f"{example.group or 'example'}/{number}")
    return [GivenDocument(text, source) for text, source in found.items()]


def _of_file(file: Path) -> list[GivenDocument]:
    try:
        lines = file.read_text("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise UserError(f"documents: {file} is not UTF-8 (byte {error.start}): save it as that") from None
    except OSError as error:
        raise UserError(f"documents: {file} cannot be read ({error.strerror}): check the path") from None
    in_rows = file.suffix.lower() in LINES
    found = []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            source = f"{file.name}:{number}"
            found.append(GivenDocument(_text_of(line, f"{file}:{number}") if in_rows else line, source))
    if not found:
        raise UserError(f"documents: {file} has no document: it is empty")
    return found


def _text_of(line: str, where: str) -> str:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:  # numbers may be too long, and lists too deep
        raise UserError(f"documents: {where} is no JSON ({str(error).partition(':')[0]}): mend the line") from None
    fields = row if isinstance(row, dict) else {}
    text = next((fields[name] for name in FIELDS if name in fields), None)
    if not isinstance(text, str) or not text.strip():
        raise UserError(f"documents: {where} has no text under {', '.join(FIELDS[:-1])} or {FIELDS[-1]}: mend the line")
    if fault := text_fault(text):
        raise UserError(f"documents: {where} {fault}: mend the line")
    return text
