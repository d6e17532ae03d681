"""Trials: one value for each setting of a space, what each is called, and which of them are trained in one pass."""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import PurePath
from typing import Any

from run_store import UserError
from search.space import HOOK_POINTS, OF_A_MEMBER, SEED, Choice, Range, Space

ALONE = "trial"
"""What the only member is called of a training that is no sweep but for what only members can set."""
LONGEST_NAME = 60
_AUTOENCODER, _LR = "model.autoencoder", "model.optimizer.lr"


@dataclass(frozen=True)
class Trial:
    """One training of a search.

    Attributes:
        number: from 1.
        settings: value by setting.
    """

    number: int
    settings: Mapping[str, Any]

    @property
    def name(self) -> str:
        """Its number and its settings, as `3-k64-lr1e-3`: fit to name a member of a sweep, a file and a metric."""
        parts = (_in_a_name(setting, value) for setting, value in self.settings.items())
        return "-".join([str(self.number), *filter(None, parts)])[:LONGEST_NAME].rstrip("-_")

    def arguments(self) -> list[str]:
        """Its settings as command line, classes before what hangs on them."""
        plain = {setting: value for setting, value in self.settings.items() if setting not in OF_A_MEMBER}
        ordered = sorted(plain.items(), key=lambda item: item[0].count("."))
        typed = [f"--{setting}={_typed(value)}" for setting, value in ordered]
        own = self.of_a_member()
        return [*typed, f"--model.members={json.dumps({ALONE: own})}"] if own else typed

    def of_a_member(self) -> dict[str, Any]:
        """Those of its settings that only members have."""
        return {setting: value for setting, value in self.settings.items() if setting in OF_A_MEMBER}


def refuse_too_many(space: Space, most: int | None) -> None:
    """Raises:
    UserError: the grid has more trials than `most`.
    """
    count = math.prod(len(entry.grid(setting)) for setting, entry in space.items())
    if most is not None and count > most:
        raise UserError(f"the grid has {count} trials and --trials is {most}: raise it, or name fewer values")


def grid(space: Space) -> list[Trial]:
    """Every combination of the space's values, the last setting changing fastest.

    Raises:
        UserError: a range does not say how many values to take.
    """
    values = [entry.grid(setting) for setting, entry in space.items()]
    combinations = enumerate(itertools.product(*values), start=1)
    return [Trial(number, dict(zip(space, combination, strict=True))) for number, combination in combinations]


# ---- one pass


def is_one_pass(space: Mapping[str, Choice | Range], config: Mapping[str, Any]) -> bool:
    """Whether the trials can be members of a sweep, which learn from the same batches.

    Args:
        space: what is tried.
        config: of the job, resolved.
    """
    return can_have_members(config) and all(
        setting in (_AUTOENCODER, _LR, *OF_A_MEMBER) or setting.startswith(f"{_AUTOENCODER}.") for setting in space
    )


def can_have_members(config: Mapping[str, Any]) -> bool:
    """Whether a job's model takes members and has none yet."""
    settings = config["model"].get("init_args") or {}
    return "members" in settings and not settings["members"]


def refuse_members(space: Space, config: Mapping[str, Any]) -> None:
    """Raises:
    UserError: the space has what only members can set, and the job's model takes none.
    """
    asked = [setting for setting in space if setting in OF_A_MEMBER]
    if asked and not can_have_members(config):
        raise UserError(
            f"the space names {asked[0]}, which a member of a sweep sets, and the job's model takes no members or has "
            "some already: leave it out"
        )


def in_groups(trials: Sequence[Trial], most: int) -> list[list[Trial]]:
    """Trials in as few groups as may be with at most `most` each, as even as may be, in order."""
    if not trials:
        return []
    count = math.ceil(len(trials) / most)
    ends = [len(trials) * group // count for group in range(count + 1)]
    return [list(trials[start:end]) for start, end in itertools.pairwise(ends)]


def sweep_of(trials: Iterable[tuple[Trial, Mapping[str, Any]]]) -> dict[str, Any]:
    """The overlay of a job that trains several trials at once.

    Args:
        trials: each with its own config, resolved.
    """
    return {"model": {"init_args": {"members": {trial.name: _member(trial, config) for trial, config in trials}}}}


def _member(trial: Trial, config: Mapping[str, Any]) -> dict[str, Any]:
    model = config["model"]["init_args"]
    member = trial.of_a_member()
    if any(setting.startswith(_AUTOENCODER) for setting in trial.settings):
        member["autoencoder"] = model["autoencoder"]
    if _LR in trial.settings:
        member["lr"] = model["optimizer"]["init_args"]["lr"]
    return member


# ---- values as text


def _typed(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _in_a_name(setting: str, value: Any) -> str:
    text = re.sub(r"[^A-Za-z0-9_-]+", "_", _short(value)).strip("_-")
    # a class or a layer speaks for itself
    speaks = isinstance(value, str | dict) or setting in (_AUTOENCODER, HOOK_POINTS)
    return text if speaks and setting != SEED else f"{setting.rpartition('.')[2]}{text}"


def _short(value: Any) -> str:
    if isinstance(value, float):
        return _without_a_point(value)
    if isinstance(value, str):
        return PurePath(value).stem if "/" in value else value
    if isinstance(value, list):
        return "_".join(map(_short, value))
    if isinstance(value, dict):
        return str(value.get("class_path", "_".join(map(str, value)))).rpartition(".")[2]
    return json.dumps(value).replace("-", "minus")


def _without_a_point(value: float) -> str:
    """15e-4 for 0.0015, at three digits: a name has no point."""
    _, digits, exponent = Decimal(f"{value:.3g}").normalize().as_tuple()
    if not isinstance(exponent, int):
        return str(value)
    sign, whole = ("minus" if value < 0 else ""), "".join(map(str, digits))
    if 0 <= exponent <= 3:
        return f"{sign}{whole}{'0' * exponent}"
    return f"{sign}{whole}e{exponent}"
