"""The space of a search: which settings are tried with which values.

    model.autoencoder.k: [16, 32, 64]                                   # a list of values
    model.optimizer.lr: {low: 1e-4, high: 1e-2, log: true, points: 3}   # a range, and how many of it a grid takes

A setting is named as on the command line.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeAlias

import yaml

from run_store import UserError, nearest
from run_store.fingerprints import canonical

SEED, HOOK_POINTS = "seed", "hook_points"
OF_A_MEMBER = (SEED, HOOK_POINTS)
"""What the members of a sweep have and no other setting of a training says."""
TRAINED_BY = ("model", "data", "trainer", "seed_everything")
"""What the names of settings begin with that make another training."""


@dataclass(frozen=True)
class Choice:
    """Values to choose from."""

    values: tuple[Any, ...]

    def grid(self, setting: str) -> tuple[Any, ...]:
        """All of them."""
        return self.values


@dataclass(frozen=True)
class Range:
    """Values between two ends, both included; whole numbers where both ends are.

    Attributes:
        low, high: the ends.
        log: whether steps are even in the logarithm.
        points: how many of it a grid takes.
    """

    low: float
    high: float
    log: bool = False
    points: int | None = None

    @property
    def is_whole(self) -> bool:
        return isinstance(self.low, int) and isinstance(self.high, int)

    def grid(self, setting: str) -> tuple[Any, ...]:
        """`points` values from end to end; fewer where whole numbers coincide.

        Raises:
            UserError: it does not say how many.
        """
        if self.points is None:
            raise UserError(
                f"{setting} is a range, of which a grid must know how many values to take: say points: 4 beside low "
                "and high, or search by --sampler optuna"
            )
        shares = [index / (self.points - 1) for index in range(self.points)]
        if self.log:
            inner = [self.low * (self.high / self.low) ** share for share in shares]
        else:
            inner = [self.low + (self.high - self.low) * share for share in shares]
        values = [self.low, *inner[1:-1], self.high]  # the ends without rounding
        if self.is_whole:
            return tuple(dict.fromkeys(round(value) for value in values))
        # what nobody would have typed, like 0.0010000000000000002, would be read as a value that means something
        return tuple(dict.fromkeys(float(f"{value:.6g}") for value in values))


Space: TypeAlias = Mapping[str, Choice | Range]
"""What is tried, by setting."""


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    """YAML 1.1 reads 1e-3 as text, and the last of two entries of one name without a word."""


def _mapping_without_doubles(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    names = [loader.construct_object(key) for key, _ in node.value]  # type: ignore[no-untyped-call]
    if doubled := [name for name in names if names.count(name) > 1]:
        raise yaml.YAMLError(f"{doubled[0]} stands twice{str(node.start_mark).replace(chr(10), ' ')}")
    return dict(loader.construct_mapping(node, deep=True))


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping_without_doubles)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+"), list("-+0123456789")
)


def read_space(path: Path) -> Space:
    """The space that a file describes.

    Raises:
        UserError: the file cannot be read, or an entry is no list or range, empty, doubled or the wrong way round.
    """
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except FileNotFoundError:
        raise UserError(f"there is no file {path}: name a space file in --space") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): name a space file in --space") from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise UserError(f"{path} cannot be read as YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict) or not content:
        raise UserError(f"{path} names no settings: write a line like model.autoencoder.k: [16, 32, 64]")
    space: dict[str, Choice | Range] = {}
    for name, entry in content.items():
        setting = short(str(name))
        if setting in space:
            raise UserError(f"{path}: {setting} stands twice: keep one of the two")
        space[setting] = _entry(f"{path}: {setting}", entry)
    return space


def short(setting: str) -> str:
    """A setting as it is typed, without the `init_args` that files have."""
    return ".".join(part for part in setting.split(".") if part != "init_args")


def refuse_unknown(space: Space, config: Mapping[str, Any]) -> None:
    """Makes sure that a job has the settings.

    Args:
        space: what is to be tried.
        config: of the job, resolved.

    Raises:
        UserError: it lacks one, or one makes no other training. What hangs on a searched class is judged when that
            is chosen.
    """
    known = [name for name in _names(config) if name.split(".")[0] in TRAINED_BY]
    for setting in space:
        chosen_above = any(setting.startswith(f"{other}.") for other in space)
        if setting in known or setting in OF_A_MEMBER or chosen_above:
            continue
        if setting.split(".")[0] == "run":
            raise UserError(
                f"the space names {setting}, which makes no other training: name settings of {', '.join(TRAINED_BY)}"
            )
        raise UserError(
            f"the space names {setting}, which the job does not have: the nearest are "
            f"{nearest(setting, [*known, *OF_A_MEMBER])}"
        )


def _entry(where: str, entry: Any) -> Choice | Range:
    if isinstance(entry, list):
        return _choice(where, entry)
    if isinstance(entry, dict):
        return _range(where, entry)
    raise UserError(f"{where} is {entry!r}: write a list of values, as in [{entry}], or a range {{low: …, high: …}}")


def _choice(where: str, values: list[Any]) -> Choice:
    if not values:
        raise UserError(f"{where} is an empty list: name at least one value, or leave the setting out")
    try:
        texts = [canonical(value) for value in values]
    except TypeError as error:
        raise UserError(f"{where} cannot be tried ({error}): write it as text, in quotes") from error
    for value, text in zip(values, texts, strict=True):
        if texts.count(text) > 1:
            raise UserError(f"{where} has {value!r} twice: name each value once")
    return Choice(tuple(values))


def _range(where: str, entry: dict[Any, Any]) -> Range:
    parts = [item.name for item in fields(Range)]
    for name in entry:
        if name not in parts:
            raise UserError(f"{where} has {name}, and a range has {', '.join(parts)}: did you mean {_like(name)}?")
    for name in ("low", "high"):
        if name not in entry:
            raise UserError(f"{where} is a range without {name}: write {{low: …, high: …}}")
        value = entry[name]
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise UserError(f"{where}: {name} is {value!r}: write a number")
    low, high, log, points = entry["low"], entry["high"], entry.get("log", False), entry.get("points")
    if not low < high:
        raise UserError(f"{where}: low is {low} and high is {high}: low must be less than high")
    if not isinstance(log, bool):
        raise UserError(f"{where}: log is {log!r}: write true or false")
    if log and low <= 0:
        raise UserError(f"{where}: low is {low}, which has no logarithm: write a positive number, or log: false")
    if points is not None and (isinstance(points, bool) or not isinstance(points, int) or points < 2):
        raise UserError(f"{where}: points is {points!r}: write a whole number from 2 on")
    return Range(low, high, log, points)


def _like(name: Any) -> str:
    return nearest(str(name), [item.name for item in fields(Range)], 1)


def _names(config: Any, prefix: str = "") -> list[str]:
    """Every setting, as it is typed; those of classes too."""
    if not isinstance(config, Mapping):
        return []
    found = []
    for name, inner in config.items():
        if name == "class_path":
            continue
        if name == "init_args":
            found += _names(inner, prefix)
        else:
            found += [f"{prefix}{name}", *_names(inner, f"{prefix}{name}.")]
    return found
