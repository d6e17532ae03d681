"""The samples of a file: what a person wants to see the predictions of."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lightning_modules.predictions import Sample, drawn
from run_store import UserError


def read_samples(path: str, count: int, seed: int) -> list[Sample]:
    """Samples of a file of JSON lines, each an object with a `prompt` and, if there is one, its `ground_truth` and an
    `index`, which is the number of the line's place among the samples by default.

    Args:
        path: of the file.
        count: how many are taken; fewer where there are not so many.
        seed: draws them.

    Raises:
        UserError: the file cannot be read, has no sample, or a line is malformed: file and line are named.
    """
    samples: dict[int, Sample] = {}
    for number, line in enumerate(_lines(path), start=1):
        if line.strip():
            sample = _sample(f"{path}:{number}", line, len(samples))
            if sample.index in samples:
                raise UserError(f"{path}:{number} has the index {sample.index} of an earlier line: give each its own")
            samples[sample.index] = sample
    if not samples:
        raise UserError(f'{path} has no sample: give it lines like {{"prompt": "…"}}')
    each = list(samples.values())
    return [each[place] for place in drawn(len(each), count, seed)]


def _lines(path: str) -> list[str]:
    try:
        # as JSON lines are told apart, which may hold other separators of lines
        return Path(path).expanduser().read_text(encoding="utf-8-sig").split("\n")
    except OSError as error:
        raise UserError(f"samples: {path} cannot be read ({error.strerror}): check the path") from error
    except UnicodeDecodeError as error:
        raise UserError(f"samples: {path} is not UTF-8 (byte {error.start + 1}): convert it") from error


def _sample(place: str, line: str, index: int) -> Sample:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{place} is not valid JSON ({str(error).partition(':')[0]}): mend the line") from error
    if not isinstance(row, dict):
        raise UserError(f'{place} is no JSON object: give it a prompt, like {{"prompt": "…"}}')
    prompt, truth, index = row.get("prompt"), row.get("ground_truth"), row.get("index", index)
    if not isinstance(prompt, str) or not prompt.strip():
        raise UserError(f"{place} has no prompt: give it a text as `prompt`")
    if truth is not None and not isinstance(truth, str):
        raise UserError(f"{place}: ground_truth is no text: make it one, or leave it out")
    if not _is_number(index):
        raise UserError(f"{place}: index {index!r} is no whole number from 0 on: make it one, or leave it out")
    for text in (prompt, truth or ""):
        if any("\ud800" <= character <= "\udfff" for character in text):
            raise UserError(f"{place} holds half of a surrogate pair, which is no text: mend the line")
    return Sample(index, prompt, truth)


def _is_number(value: Any) -> bool:
    # what SQLite can hold
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63
