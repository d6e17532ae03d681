"""A search, from a job and a space to what every trial came to."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from run_store import UserError, atomic_file
from run_store.fingerprints import fingerprint
from run_store.layout import check_name
from run_store.locks import RunLock
from run_store.selection import Criterion, select_best
from search.children import Resolved, Resolver, SearchStopped, carry_out
from search.outcomes import Outcome, complete_run, outcome_of, why_failed
from search.space import Choice, Range, Space, refuse_unknown
from search.study import Study
from search.trials import Trial, grid, in_groups, is_one_pass, refuse_members, refuse_too_many, sweep_of

Sampler = Literal["grid", "optuna"]
TrialMode = Literal["resume_if_incomplete", "reuse_if_exists"]
TRIALS_OF_OPTUNA = 20
_STOPPED = (130, 143)
Tell = Callable[[str], None]


@dataclass(frozen=True)
class Job:
    """What is searched over.

    Attributes:
        arguments: of `fit`, as they were typed.
        config: resolved.
        shortened: more arguments, which trials have and the final training has not.
    """

    arguments: Sequence[str]
    config: Mapping[str, Any]
    shortened: Sequence[str] = ()

    @property
    def _run(self) -> dict[str, str]:
        return dict(self.config["run"])

    @property
    def name(self) -> str:
        """What its runs are called."""
        return self._run["name"]

    @property
    def folder(self) -> Path:
        """Of the search: of all trials' runs, of what was selected, and of logs.

        Raises:
            UserError: the job's name is too long to be added to.
        """
        return Path(self._run["folder"], check_name(f"{self.name}-search"))

    def of_a_trial(self, trial: Trial | None = None, mode: TrialMode = "resume_if_incomplete") -> list[str]:
        """The command line of a trial, or of what all of them share."""
        own = [] if trial is None else trial.arguments()
        return [*self.arguments, *self.shortened, *own, f"--run.name={self.folder.name}", f"--run.mode={mode}"]


@dataclass(frozen=True)
class Plan:
    """How a search is made.

    Attributes:
        space: what is tried.
        criterion: what is best; Optuna aims at it, too.
        sampler: who chooses the trials.
        trials: of Optuna, how many; of a grid, the most that it may have.
        members_at_once: trials that are trained in one pass at most, where that can be.
        mode: what is done with runs of trials that are there already.
        seed: of Optuna's sampler.
    """

    space: Space
    criterion: Criterion
    sampler: Sampler = "grid"
    trials: int | None = None
    members_at_once: int = 8
    mode: TrialMode = "resume_if_incomplete"
    seed: int = 0


@dataclass
class Search:
    """Carries it out. Whatever is finished already is found by its fingerprints and not trained again.

    Args:
        job: what is searched over.
        plan: how.
        resolver: reads the trials' command lines.
        tell: gets a line at every step.
    """

    job: Job
    plan: Plan
    resolver: Resolver
    tell: Tell
    outcomes: list[Outcome] = field(default_factory=list)

    def carry_out(self) -> list[Outcome]:
        """What each trial came to.

        Raises:
            SearchStopped: a signal came, or a trial was paused.
            UserError: the space does not suit the job, or another process works on the same.
        """
        refuse_unknown(self.plan.space, self.job.config)
        refuse_members(self.plan.space, self.job.config)
        with _alone_in(self.job.folder):
            if self.plan.sampler == "optuna":
                self._suggested()
            else:
                self._grid()
        return self.outcomes

    # ---- a grid

    def _grid(self) -> None:
        refuse_too_many(self.plan.space, self.plan.trials)
        trials = grid(self.plan.space)
        resolved = [self._resolved(trial) for trial in trials]
        _refuse_doubles(trials, resolved)
        if is_one_pass(self.plan.space, self.job.config) and self.plan.members_at_once > 1:
            self._in_one_pass(trials, resolved)
            return
        self.resolver.close()  # nothing more to read
        for trial, meaning in zip(trials, resolved, strict=True):
            self._alone(trial, meaning, len(trials))

    def _in_one_pass(self, trials: Sequence[Trial], resolved: Sequence[Resolved]) -> None:
        of = dict(zip((trial.number for trial in trials), resolved, strict=True))
        groups = in_groups(trials, self.plan.members_at_once)
        lines = [self._line_of(group, of) for group in groups]
        sweeps = [self.resolver(line) for line in lines]
        self.resolver.close()
        for number, (group, line, sweep) in enumerate(zip(groups, lines, sweeps, strict=True), start=1):
            self.tell(f"sweep {number} of {len(groups)}: {', '.join(trial.name for trial in group)}")
            run, reason = self._trained(line, sweep, f"sweep-{number}")
            for trial in group:
                identity = of[trial.number].identity
                failed = Outcome(trial, identity, reason=reason)
                self._note(failed if run is None else outcome_of(trial, identity, run, trial.name))

    def _line_of(self, group: Sequence[Trial], of: dict[int, Resolved]) -> list[str]:
        """The command line of a sweep, whose overlay is written into the search's folder."""
        overlay = sweep_of((trial, of[trial.number].config) for trial in group)
        text = yaml.safe_dump(overlay, sort_keys=False)
        path = self.job.folder / f"sweep-{hashlib.sha256(text.encode()).hexdigest()[:8]}.yaml"
        with atomic_file(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
        return [*self.job.of_a_trial(mode=self.plan.mode), "--config", str(path)]

    # ---- Optuna

    def _suggested(self) -> None:
        wanted = self.plan.trials or TRIALS_OF_OPTUNA
        line = self.job.of_a_trial()
        criterion = self.plan.criterion
        question = [_plain(self.plan.space), dict(criterion.metrics), criterion.direction, self.plan.seed]
        name = fingerprint([question, self.resolver(line).identity])[:8]
        study = Study(self.job.folder / f"study-{name}.sqlite", self.plan.space, criterion.direction, self.plan.seed)
        for trial in study.trials()[:wanted]:
            self._told_before(trial)
        while study.told < wanted:
            outcome = self._suggestion(study.ask(), wanted)
            study.tell(select_best([outcome.candidate], Criterion(criterion.metrics, criterion.direction)).score)

    def _suggestion(self, trial: Trial, count: int) -> Outcome:
        try:
            meaning = self._resolved(trial)
        except UserError as error:  # a combination that the model refuses is one trial's failure
            return self._note(Outcome(trial, ("", ""), reason=str(error)))
        return self._alone(trial, meaning, count)

    def _told_before(self, trial: Trial) -> None:
        """What has failed is not tried again: what was suggested since follows from it."""
        try:
            meaning = self._resolved(trial)
        except UserError as error:
            self._note(Outcome(trial, ("", ""), reason=str(error)))
            return
        run = complete_run(meaning.folder)
        failed = Outcome(
            trial, meaning.identity, reason=f"failed before: {why_failed(meaning.folder, 1, self._log(trial.name))}"
        )
        self._note(failed if run is None else outcome_of(trial, meaning.identity, run))

    # ---- one training

    def _resolved(self, trial: Trial) -> Resolved:
        try:
            return self.resolver(self.job.of_a_trial(trial, self.plan.mode))
        except UserError as error:
            raise UserError(f"trial {trial.name}: {error}") from error

    def _alone(self, trial: Trial, meaning: Resolved, count: int) -> Outcome:
        self.tell(f"trial {trial.number} of {count}: {trial.name}")
        run, reason = self._trained(self.job.of_a_trial(trial, self.plan.mode), meaning, trial.name)
        failed = Outcome(trial, meaning.identity, reason=reason)
        return self._note(failed if run is None else outcome_of(trial, meaning.identity, run))

    def _trained(self, line: Sequence[str], meaning: Resolved, name: str) -> tuple[Path | None, str]:
        """The run that a command line trains, in a process of its own, and otherwise why there is none."""
        if run := complete_run(meaning.folder):
            self.tell(f"  trained already: {run}")
            return run, ""
        log = self._log(name)
        self.tell(f"  it prints to {log}")
        code = carry_out(["fit", *line], log)
        run = complete_run(meaning.folder)
        if run is None and code in (0, *_STOPPED):  # paused, or stopped by somebody else
            raise SearchStopped(code)
        return run, "" if run else why_failed(meaning.folder, code, log)

    def _log(self, name: str) -> Path:
        return self.job.folder / "logs" / f"{name}.log"

    def _note(self, outcome: Outcome) -> Outcome:
        self.outcomes.append(outcome)
        if outcome.run is None:
            self.tell(f"  {outcome.trial.name} has failed: {outcome.reason}")
            return outcome
        values = {name: outcome.metrics.get(name) for name in self.plan.criterion.metrics}
        told = (f"no {name}" if value is None else f"{name} {value:.6g}" for name, value in values.items())
        self.tell(f"  {outcome.trial.name}: {', '.join(told)}")
        return outcome


def _refuse_doubles(trials: Sequence[Trial], resolved: Sequence[Resolved]) -> None:
    seen: dict[tuple[str, str], Trial] = {}
    for trial, meaning in zip(trials, resolved, strict=True):
        other = seen.setdefault(meaning.identity, trial)
        if other is not trial:
            raise UserError(
                f"trials {other.name} and {trial.name} are the same training, since nothing of it hangs on what they "
                "differ in: leave that setting or value out of the space"
            )


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write to {folder} ({error.strerror}): choose another --run.folder") from error
    with RunLock(folder):
        yield


def _plain(space: Space) -> list[object]:
    return [[setting, _entry(entry)] for setting, entry in space.items()]


def _entry(entry: Choice | Range) -> list[object]:
    return list(entry.values) if isinstance(entry, Choice) else [entry.low, entry.high, entry.log]
