"""`python main.py runs`: light verbs around runs. A new one is a function in a file here and its name in VERBS."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from cli.light_verbs import carry_out_one_of
from cli.run_verbs.choosing import best
from cli.run_verbs.comparing import compare
from cli.run_verbs.deleting import clean, delete
from cli.run_verbs.keeping import reindex, update, verify
from cli.run_verbs.looking import list_, show
from cli.run_verbs.pausing import pause, resume
from cli.run_verbs.watching import watch

VERBS: dict[str, Callable[..., int | None]] = {
    "list": list_,
    "show": show,
    "compare": compare,
    "best": best,
    "watch": watch,
    "update": update,
    "pause": pause,
    "resume": resume,
    "delete": delete,
    "clean": clean,
    "verify": verify,
    "reindex": reindex,
}


def run(arguments: Sequence[str]) -> int:
    """Carries out one verb; `arguments` start with `runs`.

    Returns:
        The exit code.

    Raises:
        UserError: a verb or setting is unknown or has an impossible value, or the verb cannot do its work.
    """
    return carry_out_one_of(VERBS, "runs", arguments[1:])
