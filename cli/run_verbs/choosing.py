"""`runs best`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Literal

from cli.criteria import criterion_of
from cli.run_verbs.settings import ROOT, printed_json
from cli.terminal import warn
from run_store import UserError, nearest
from run_store.registry import ListedRun, list_runs
from run_store.run_index import RunQuery
from run_store.selection import Candidate, Criterion, Direction, TieBreak, unfit
from run_store.selection_cache import recalled_best, worked_out_best

SELECTIONS = "selections"
_SHOWN = 10


def best(
    metric: list[str] = ["val/fvu"],  # noqa: B006  (jsonargparse copies it)
    direction: Direction = "min",
    at_least: list[str] = [],  # noqa: B006
    at_most: list[str] = [],  # noqa: B006
    tie_break: TieBreak = "newest",
    mode: Literal["reuse_if_exists", "force_new"] = "reuse_if_exists",
    name: str | None = None,
    model: str | None = None,
    dataset: str | None = None,
    tag: list[str] | None = None,
    folder: str = ROOT,
    json: bool = False,
) -> None:
    """Chooses the best of all complete runs by what they measured last, and remembers the choice in FOLDER/selections,
    or FOLDER/NAME/selections.

    Args:
        metric: What is best, as NAME or NAME=WEIGHT; of several the weighted sum counts.
        direction: Whether the lowest or the highest is the best.
        at_least: Only runs are considered that reach NAME=VALUE.
        at_most: Only runs are considered that do not exceed NAME=VALUE.
        tie_break: Which of equally good runs is chosen.
        mode: reuse_if_exists takes the choice that is remembered for the same question over the same runs; force_new
            chooses again.
        name: Only runs of this name.
        model: Only runs that train this class.
        dataset: Only runs on this data.
        tag: Only runs that have all of these tags.
        folder: The folder of all runs.
        json: Print JSON, with why each of the others was not chosen.
    """
    criterion = criterion_of(metric, direction, at_least, at_most, tie_break)
    found = list_runs(folder, RunQuery(name, model, dataset, "complete", tuple(tag or ())))
    warn(found.warning)
    runs = {run.summary.id: run for run in found.runs}
    if not runs:
        raise UserError(f"there is no complete run to choose from in {folder}: look with `runs list`")
    _refuse_unknown_metrics(criterion, runs.values())
    candidates = [_candidate(run) for run in runs.values()]
    cache = Path(folder, *filter(None, [name]), SELECTIONS)
    recalled = recalled_best(cache, candidates, criterion) if mode == "reuse_if_exists" else None
    selection = recalled or worked_out_best(cache, candidates, criterion)
    if json:
        chosen = runs[selection.best].folder if selection.best else None
        content = {**asdict(selection), "folder": chosen, "criterion": criterion, "remembered": recalled is not None}
        printed_json(content)
        return
    _tell_unfit(candidates, criterion, runs)
    if selection.best is None:
        raise UserError(
            f"none of {len(runs)} complete runs can be chosen: loosen at_least and at_most or take another metric"
        )
    chosen_run = runs[selection.best]
    where = "remembered" if recalled else "chosen now and remembered"
    print(f"{chosen_run.folder} is the best of {len(runs)}: {_formula(criterion)} = {selection.score:.6g} ({where})")


def _candidate(run: ListedRun) -> Candidate:
    return Candidate(run.summary.id, run.summary.created, run.summary.step, run.summary.metrics)


def _refuse_unknown_metrics(criterion: Criterion, runs: Iterable[ListedRun]) -> None:
    """A metric that no run has is a typing error, and not a reason to choose none."""
    known = {name for run in runs for name in run.summary.metrics}
    for name in [*criterion.metrics, *criterion.thresholds]:
        if name not in known:
            near = f"the nearest are {nearest(name, known)}" if known else "they have none at all"
            raise UserError(f"no complete run has measured {name}: {near}")


def _tell_unfit(candidates: Iterable[Candidate], criterion: Criterion, runs: Mapping[str, ListedRun]) -> None:
    """Which runs could not be compared, and why. Those that lost are told by --json alone."""
    left_out = [(runs[one.id].folder, why) for one in candidates if (why := unfit(one, criterion))]
    for run, why in left_out[:_SHOWN]:
        print(f"left out: {run}: {why}")
    if len(left_out) > _SHOWN:
        print(f"left out: {len(left_out) - _SHOWN} more, see --json")


def _formula(criterion: Criterion) -> str:
    terms = criterion.metrics.items()
    return " + ".join(name if weight == 1 else f"{weight:g} × {name}" for name, weight in terms)
