"""Numbers for people: the first run of a name is 1, the next 2, whatever each of them trains."""

from __future__ import annotations

import json
import os
from pathlib import Path

from run_store.atomic import write_json

NUMBER_NAME = "number.json"
_TAKEN = ".numbers"


def number_of(run: str | os.PathLike[str]) -> int:
    """The run's number among those of its name, given at the first call and kept in its folder.

    However many processes ask for different runs at once, each run gets a number of its own: making a file is atomic.
    A number whose run was deleted is not given again.

    Raises:
        OSError: the folder cannot be written to.
    """
    run = Path(run)
    try:
        return int(json.loads((run / NUMBER_NAME).read_bytes())["number"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        number = _taken(run.parent.parent / _TAKEN)
    write_json(run / NUMBER_NAME, {"number": number})
    return number


def _taken(folder: Path) -> int:
    folder.mkdir(exist_ok=True)
    number = 1 + max((int(path.name) for path in folder.iterdir() if path.name.isdecimal()), default=0)
    while True:
        try:
            os.close(os.open(folder / str(number), os.O_CREAT | os.O_EXCL, 0o666))
        except FileExistsError:
            number += 1
        else:
            return number
