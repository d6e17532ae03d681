"""What must hold of a run before its model is handed on."""

from __future__ import annotations

from pathlib import Path

from run_store import UserError
from run_store.checkpoints import damage
from run_store.completion import problems_of

MOST_NAMED = 5


def refuse_incomplete(run: Path) -> None:
    """Looks that the run has a record that says it is complete, and every file of it as it was written.

    Raises:
        UserError: it is not; what is missing is named.
    """
    if problems := list(problems_of(run)):
        more = f" and {len(problems) - MOST_NAMED} more" if len(problems) > MOST_NAMED else ""
        raise UserError(
            f"the run {run} is not complete, {', '.join(problems[:MOST_NAMED])}{more}: "
            f"finish it by python main.py runs resume {run}, or train it anew by --run.mode force_new"
        )


def refuse_damaged(checkpoint: Path) -> None:
    """Looks that every file of a checkpoint has its recorded hash; the run's record names those of the newest alone.

    Raises:
        UserError: one has not.
    """
    if problem := damage(checkpoint):
        raise UserError(f"the checkpoint {checkpoint} cannot be handed on ({problem}): choose another --checkpoint")
