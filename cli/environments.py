"""Where a command runs, and the settings that come with it: configs/environment/NAME.yaml, before all others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import get_args

import yaml

from cli.overlays import CONFIGS
from remote_files import is_url
from run_store.environment import Environment, detect_environment
from run_store.paths import normalised

AUTO = "auto"
SETTING = "--run.environment"
RUNS = "runs"
STORES = "stores"
"""The folder that configs of ours name for stores."""


def with_environment(arguments: Sequence[str], configs: Path = CONFIGS) -> list[str]:
    """The command line with the settings of its environment as the first config, so that every other one and every
    option wins.
    """
    file = configs / "environment" / f"{environment_of(_asked(arguments))}.yaml"
    if not arguments or not file.is_file():
        return list(arguments)
    return [arguments[0], "--config", str(file), *arguments[1:]]


def environment_of(asked: str) -> str:
    """The one that is asked for; of `auto`, the one that is found."""
    return detect_environment() if asked == AUTO else asked


def folder_of_runs(configs: Path = CONFIGS) -> str:
    """Where runs lie unless a command says otherwise, in the environment that is found."""
    file = configs / "environment" / f"{detect_environment()}.yaml"
    content = yaml.safe_load(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return str(content.get("run", {}).get("folder", RUNS))


def store_moved(path: str, stores: str, typed: Sequence[str]) -> str:
    """Where stores/NAME of a config lies in an environment; any other path, and what was typed, is left as it is.

    Args:
        path: as the settings have it.
        stores: the folder of stores.
        typed: the command line.
    """
    if is_url(path):
        return path
    first, *rest = PurePosixPath(normalised(path)).parts or ("",)
    if first != STORES or not rest or any(path in (argument, argument.partition("=")[2]) for argument in typed):
        return path
    return "/".join([stores.rstrip("/"), *rest]) if is_url(stores) else str(PurePosixPath(stores, *rest))


def _asked(arguments: Sequence[str]) -> str:
    """What the command line says, else the last config that says anything; whether it makes sense is for the parser."""
    options = list(_options(arguments))
    asked = [value for option, value in options if option == SETTING]
    asked = asked or [name for option, file in options if option == "--config" if (name := _named_in(Path(file)))]
    return asked[-1] if asked and asked[-1] in get_args(Environment) else AUTO


def _named_in(file: Path) -> str | None:
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
        name = content["run"]["environment"]
    except (OSError, ValueError, yaml.YAMLError, KeyError, TypeError):
        return None
    return name if isinstance(name, str) else None


def _options(arguments: Sequence[str]) -> Iterator[tuple[str, str]]:
    for place, argument in enumerate(arguments):
        option, equals, value = argument.partition("=")
        if equals:
            yield option, value
        elif place + 1 < len(arguments):
            yield option, arguments[place + 1]
