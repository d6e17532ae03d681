"""The one exception that a person is meant to read."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A mistake that its reader can mend: one sentence that names the setting or the file and says what to do.

    The command line prints it without a traceback and exits with code 2.
    """


def nearest(name: str, candidates: Iterable[str], count: int = 3) -> str:
    """The candidates most like a misspelt name, as "a, b or c", for messages."""
    found = difflib.get_close_matches(name, list(candidates), n=count, cutoff=0)
    return " or ".join(filter(None, [", ".join(found[:-1]), *found[-1:]]))
