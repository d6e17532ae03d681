"""What verbs ask of whoever sits at the terminal."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable

from run_store import UserError

_WIDTH_OF_A_FILE = 120


def agreed(question: str) -> bool:
    """Whether the answer is yes.

    Raises:
        UserError: nobody is there to ask.
    """
    if not sys.stdin.isatty():
        raise UserError(f"{question} Say so by --yes, since nobody is there to ask")
    return input(f"{question} [y/N] ").strip().lower() in ("y", "yes")


def width() -> int:
    """Cells in a line."""
    return shutil.get_terminal_size((_WIDTH_OF_A_FILE, 0)).columns


def warn(sentence: str) -> None:
    """Prints it on stderr, unless there is nothing to say."""
    if sentence:
        print(f"warning: {sentence}", file=sys.stderr)


def progress(what: str) -> Callable[[int, int], None]:
    """Tells on a terminal how far something is."""

    def told(done: int, whole: int) -> None:
        if sys.stderr.isatty():
            print(f"\r{what}: {done / max(1, whole):4.0%}", end="\n" if done >= whole else "", file=sys.stderr)

    return told
