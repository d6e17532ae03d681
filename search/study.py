"""Trials that Optuna suggests, one after another, from what the ones before came to."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

from run_store import UserError
from run_store.fingerprints import fingerprint
from run_store.selection import Direction
from search.space import Choice, Range, Space
from search.trials import Trial

_NAME = "search"


class Study:
    """A study of Optuna in a SQLite file, which a search that is started again goes on with.

    The n-th suggestion follows from the seed, from n and from what is known by then: a search that was killed gets the
    same ones as one that was not.

    Args:
        file: the database; made where it is missing.
        space: what is tried.
        direction: whether the lowest or the highest score is the best.
        seed: of the sampler.

    Raises:
        UserError: the extra is missing, or the file cannot be used.
    """

    def __init__(self, file: Path, space: Space, direction: Direction, seed: int) -> None:
        self._optuna = _optuna()
        self._optuna.logging.set_verbosity(self._optuna.logging.WARNING)
        self._space, self._seed = space, seed
        self._distributions = {setting: self._distribution(entry) for setting, entry in space.items()}
        try:
            self._study = self._optuna.create_study(
                storage=f"sqlite:///{file.as_posix()}",
                study_name=_NAME,
                direction={"min": "minimize", "max": "maximize"}[direction],
                load_if_exists=True,
            )
        except Exception as error:  # of SQLAlchemy, which this project does not know
            reason = " ".join(str(error).split())[:200]
            raise UserError(
                f"{file} cannot be used ({reason}): delete it, and finished trials are found again"
            ) from error

    def ask(self) -> Trial:
        """The next trial; the one that a killed search was at, if there is one."""
        states = self._optuna.trial.TrialState
        for trial in self._study.get_trials(deepcopy=False, states=(states.RUNNING,)):
            if trial.params.keys() == self._space.keys():
                return self._trial(trial.params)
            self._study.tell(trial.number, state=states.FAIL)  # the kill came between two of its values
        seed = int(fingerprint([self._seed, self.told])[:8], 16)
        self._study.sampler = self._optuna.samplers.TPESampler(seed=seed)
        return self._trial(self._study.ask(self._distributions).params)

    def tell(self, score: float | None) -> None:
        """Notes what the trial that was asked for came to; None where it has failed."""
        states = self._optuna.trial.TrialState
        (trial,) = self._study.get_trials(deepcopy=False, states=(states.RUNNING,))
        state = states.FAIL if score is None else states.COMPLETE
        self._study.tell(trial.number, None if score is None else [score], state=state)

    @property
    def told(self) -> int:
        """How many trials have been told of."""
        return len(self._told())

    def trials(self) -> list[Trial]:
        """Those that have been told of."""
        return [self._trial(trial.params, number) for number, trial in enumerate(self._told(), start=1)]

    def _told(self) -> list[Any]:
        finished = (trial for trial in self._study.get_trials(deepcopy=False) if trial.state.is_finished())
        return [trial for trial in finished if trial.params.keys() == self._space.keys()]

    def _trial(self, params: dict[str, Any], number: int | None = None) -> Trial:
        entries = self._space.items()
        settings = {name: _value(params[name], entry) for name, entry in entries}
        return Trial(self.told + 1 if number is None else number, settings)

    def _distribution(self, entry: Choice | Range) -> Any:
        of = self._optuna.distributions
        if isinstance(entry, Choice):
            # text: Optuna stores no lists or mappings
            return of.CategoricalDistribution([json.dumps(value, sort_keys=True) for value in entry.values])
        kind = of.IntDistribution if entry.is_whole else of.FloatDistribution
        return kind(entry.low, entry.high, log=entry.log)


def _value(stored: Any, entry: Choice | Range) -> Any:
    return json.loads(stored) if isinstance(entry, Choice) else stored


def _optuna() -> Any:
    try:
        return importlib.import_module("optuna")
    except ImportError:
        raise UserError(
            "--sampler optuna needs Optuna, which is not installed: pip install 'fulgurite[optuna]', or search by "
            "--sampler grid"
        ) from None
