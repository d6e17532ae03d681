"""What follows a search: selecting the best trial, the final training, and its export."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from run_store import UserError, write_json
from run_store.selection import Criterion, Selection
from run_store.selection_cache import cached_best
from search.children import Resolver, SearchStopped, carry_out
from search.outcomes import Outcome, as_json, as_table, complete_run
from search.searching import Job, Plan, Search, Tell
from search.trials import ALONE

Final = Literal["scratch", "best", "none"]
SUMMARY_NAME = "search.json"
SELECTIONS_NAME = "selections"


@dataclass(frozen=True)
class Trained:
    """A complete run, and which member of it is meant, if it has several."""

    run: Path
    member: str | None = None


@dataclass(frozen=True)
class Exported:
    """Files for other libraries, and what they were made from."""

    format: str
    output: str
    run: str
    member: str | None = None


@dataclass(frozen=True)
class Following:
    """What is done once the trials have come to an end.

    Attributes:
        final: scratch trains the job with the best trial's settings from weights freshly drawn, best from the trial's;
            none takes the trial as it is.
        format: of an export, if there is to be one; see `python main.py export --help`.
        output: its folder; exported/NAME by default.
    """

    final: Final = "scratch"
    format: str | None = None
    output: str | None = None


def carry_through(
    job: Job, plan: Plan, following: Following, resolver: Resolver, tell: Tell, output: int | None = None
) -> dict[str, Any]:
    """Searches, selects, trains finally and exports.

    Args:
        job: what is searched over.
        plan: how.
        following: what comes after the trials.
        resolver: reads command lines.
        tell: gets a line at every step, and the table of trials.
        output: number of the open file that gets what the final training and the export print; the terminal by default.

    Returns:
        What it came to, as plain values.

    Raises:
        SearchStopped: a signal came, or a run was paused.
        UserError: the space does not suit the job, no trial can be the best, or what follows fails.
    """
    outcomes = Search(job, plan, resolver, tell).carry_out()
    selection = selected(job, outcomes, plan.criterion)
    made = last_export(job)
    summarise(job, outcomes, plan.criterion, selection, export=made)
    tell(as_table(outcomes, plan.criterion, selection))
    trained = trained_finally(job, best_of(outcomes, selection), following.final, resolver, tell, output)
    if following.format is not None:
        place = following.output or Path("exported", job.name).as_posix()
        wanted = Exported(following.format, place, str(trained.run), trained.member)
        made = exported(wanted, made, tell, output)
    return summarise(job, outcomes, plan.criterion, selection, trained, made)


def selected(job: Job, outcomes: Sequence[Outcome], criterion: Criterion) -> Selection:
    """The best of the trials that came to an end, remembered in the search's folder: asked again about the same trials
    it is not chosen anew.

    Raises:
        UserError: the folder cannot be written to.
    """
    candidates = [outcome.candidate for outcome in outcomes if outcome.run is not None]
    return cached_best(job.folder / SELECTIONS_NAME, candidates, criterion)


def best_of(outcomes: Sequence[Outcome], selection: Selection) -> Outcome:
    """The outcome that was selected.

    Raises:
        UserError: none was, and why not.
    """
    for outcome in outcomes:
        if outcome.run is not None and outcome.trial.name == selection.best:
            return outcome
    reasons = [
        f"{outcome.trial.name} {selection.rejected.get(outcome.trial.name) or f'has failed ({outcome.reason})'}"
        for outcome in outcomes
    ]
    more = f" and {len(reasons) - 3} more" if len(reasons) > 3 else ""
    raise UserError(
        f"no trial can be the best ({'; '.join(reasons[:3])}{more}): choose another --metric, loosen the thresholds or "
        "mend what failed"
    )


def trained_finally(
    job: Job, best: Outcome, how: Final, resolver: Resolver, tell: Tell, output: int | None = None
) -> Trained:
    """The job with the best trial's settings, trained unless it is there.

    Args:
        job: what was searched over.
        best: the trial that was selected.
        how: see `Following`.
        resolver: reads its command line.
        tell: gets a line about what is done.
        output: number of the open file that gets the training's output; the terminal by default.

    Raises:
        SearchStopped: a signal came, or the training was paused.
        UserError: the training failed.
    """
    assert best.run is not None
    if how == "none":
        return Trained(best.run, best.member)
    line = [*job.arguments, *best.trial.arguments()]
    if how == "best":
        member = [] if best.member is None else [f"--run.member={best.member}"]
        line += ["--run.source=run", f"--run.path={best.run}", *member]
    meaning = resolver(line)
    resolver.close()
    if meaning.identity == best.identity and best.member is None:
        tell(f"the final training is that of {best.trial.name}, to the bit: {best.run}")
        return Trained(best.run)
    tell(f"final training with the settings of {best.trial.name}")
    code = carry_out(["fit", *line], output=output)
    run = complete_run(meaning.folder)
    if run is None or code:
        if code in (0, 130, 143):
            raise SearchStopped(code)
        raise UserError(f"the final training ended with code {code}: see what it printed above")
    # a training that is no sweep but for what only members can set
    return Trained(run, ALONE if best.trial.of_a_member() else None)


def last_export(job: Job) -> Exported | None:
    """What an earlier start of the search has exported."""
    try:
        content = json.loads((job.folder / SUMMARY_NAME).read_text(encoding="utf-8"))
        return Exported(**content["export"])
    except (OSError, ValueError, TypeError, KeyError):
        return None


def exported(wanted: Exported, before: Exported | None, tell: Tell, output: int | None = None) -> Exported:
    """Makes files for other libraries by `python main.py export`, unless an earlier start has made the same.

    Args:
        wanted: what is to be made.
        before: what an earlier start has made.
        tell: gets a line when there is nothing to do.
        output: number of the open file that gets the output of `export`; the terminal by default.

    Raises:
        UserError: it cannot be exported.
    """
    if wanted == before and Path(wanted.output).is_dir():
        tell(f"exported already: {wanted.output}")
        return wanted
    member = [] if wanted.member is None else ["--member", wanted.member]
    line = ["export", "--run", wanted.run, "--format", wanted.format, "--output", wanted.output, *member]
    if code := carry_out(line, output=output):
        raise UserError(f"the export ended with code {code}: see what it printed above")
    return wanted


def summarise(
    job: Job,
    outcomes: Sequence[Outcome],
    criterion: Criterion,
    selection: Selection,
    trained: Trained | None = None,
    export: Exported | None = None,
) -> dict[str, Any]:
    """What the search came to, as plain values, which are stored in its folder as well."""
    final = None if trained is None else {"run": str(trained.run), "member": trained.member}
    summary = {
        "folder": str(job.folder),
        "criterion": asdict(criterion),
        "best": selection.best,
        "score": selection.score,
        "trials": as_json(outcomes, selection),
        "final": final,
        "export": None if export is None else asdict(export),
    }
    write_json(job.folder / SUMMARY_NAME, summary)
    return summary
