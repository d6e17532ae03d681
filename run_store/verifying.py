"""Holding the files of a run against what was written down when they were made."""

from __future__ import annotations

import os
from pathlib import Path

from run_store.checkpoints import damage
from run_store.completion import completion_of
from run_store.errors import UserError
from run_store.layout import CHECKPOINTS_NAME
from run_store.record import read_record


def problems_of(folder: str | os.PathLike[str]) -> list[str]:
    """What is wrong with a run, one sentence each; none when its record, every checkpoint in it and, once it is
    complete, every file that it must have are as they were written. Each file is read from end to end.
    """
    folder = Path(folder)
    try:
        record = read_record(folder)
    except UserError as error:
        return [str(error)]
    problems: list[str] = []
    verified: set[Path] = set()
    if record.status == "complete":
        completion = completion_of(folder)
        if completion.complete:
            verified = {(folder / output.name).parent for output in record.outputs}
        else:
            problems.append(f"{folder} is not complete: {completion.reason}")
    for checkpoint in sorted((folder / CHECKPOINTS_NAME).glob("step-????????*")):
        # the newest one of a complete run is among its outputs, all of it
        if checkpoint.suffix == "" and checkpoint not in verified and (why := damage(checkpoint)):
            problems.append(f"{checkpoint} is damaged: {why}")
    return problems
