"""What verbs ask of whoever sits at the terminal."""

from __future__ import annotations

import shutil
import sys

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
