"""`runs delete` and `runs clean`. What goes is decided by the run folders, never by the index."""

from __future__ import annotations

from typing import Literal

from jsonargparse.typing import NonNegativeInt, PositiveInt

from cli.run_verbs.settings import ROOT
from cli.terminal import agreed
from run_store import UserError
from run_store.cleaning import RunRules, plan_cleaning
from run_store.descent import descendants as descendants_of
from run_store.listing import FoundRun, delete_run, find_runs
from run_store.predictions import delete_predictions_of
from run_store.record import Status
from run_store.registry import find_run
from run_store.retention import UNTOUCHED

Descendants = Literal["refuse", "keep", "delete"]


def delete(run: str, folder: str = ROOT, yes: bool = False, descendants: Descendants = "refuse") -> None:
    """Deletes a run with its folder and its predictions. One that is running, pending or paused is refused, and so is
    one whose weights other runs began with.

    Args:
        run: Its folder, id or name.
        folder: The folder of all runs.
        yes: Do not ask.
        descendants: What becomes of runs that began with its weights, and of those that began with theirs: refuse to
            delete anything, keep them, or delete them too.
    """
    found = find_run(folder, run)
    known = descendants_of(found, find_runs(folder).runs)
    if known and descendants == "refuse":
        raise UserError(
            f"{_counted(known)} began with weights of the run {found.folder} ({_shown(known)}): --descendants keep "
            "deletes it all the same, --descendants delete deletes them too"
        )
    going = [*reversed(known), found] if descendants == "delete" else [found]
    for one in going:
        if one.status in UNTOUCHED:
            raise UserError(
                f"the run {one.folder} is {one.status}, and nothing is deleted: finish it or mark it interrupted first"
            )
    more = f" and {_counted(going[:-1])} that began with its weights ({_shown(known)})" if len(going) > 1 else ""
    if not yes and not agreed(f"delete {found.folder}{more}?"):
        print("nothing is deleted")
        return
    for one in going:
        print(f"deleted {one.folder}{_deleted(one)}")


def clean(
    folder: str = ROOT,
    name: str | None = None,
    keep_last: PositiveInt = 1,
    minimum_age_days: NonNegativeInt = 0,
    statuses: list[Status] = ["failed", "interrupted"],  # noqa: B006  (jsonargparse copies it)
    delete: bool = False,
) -> None:
    """Deletes runs that nobody needs any more: by default only tells which.

    The newest ones of each identity stay, and so does every run that is running, pending or paused, or whose weights an
    unfinished run began with.

    Args:
        folder: The folder of all runs.
        name: Only runs of this name.
        keep_last: How many runs of each identity stay whatever their status, the newest.
        minimum_age_days: Younger runs stay.
        statuses: Only runs in one of these go.
        delete: true deletes; false tells what would go.
    """
    plan = plan_cleaning(find_runs(folder, name=name).runs, RunRules(keep_last, minimum_age_days, tuple(statuses)))
    for run in plan:
        more = _deleted(run) if delete is True else ""
        print(f"{'deleted' if delete is True else 'would delete'} {run.folder} ({run.status}){more}")
    if not plan:
        print("nothing to clean")
    elif delete is not True:
        print("nothing is deleted without --delete true")


def _deleted(run: FoundRun) -> str:
    """Deletes the run, and says what has become of its predictions."""
    delete_run(run.folder)
    try:
        count = delete_predictions_of(run.record)
    except UserError as error:  # the run is gone all the same
        return f"; its predictions stay, since {error}"
    return f" and its {count} predictions" if count else ""


def _counted(runs: list[FoundRun]) -> str:
    return "1 run" if len(runs) == 1 else f"{len(runs)} runs"


def _shown(runs: list[FoundRun]) -> str:
    return ", ".join(str(run.folder) for run in runs[:3]) + (", …" if len(runs) > 3 else "")
