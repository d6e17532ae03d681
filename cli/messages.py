"""Turns what the parser says, a tree of ten lines, into one line that a person can act on."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import yaml
from lightning.pytorch import Trainer

import cli.class_names
from cli.run_settings import RunSettings
from run_store import nearest

TOP = ("config", "ckpt_path", "data", "model", "resume", "run", "seed_everything", "trainer")


GROUPS: dict[str, type] = {"trainer": Trainer, "run": RunSettings}


def one_line(error: BaseException, arguments: Sequence[str]) -> str:
    """The cause that the parser buried, with the setting's full name and, where a name was misspelt, the nearest ones.

    Args:
        error: what the parser raised.
        arguments: the command line: the parser does not say which file it could not read.
    """
    text = str(error)
    if broken := _broken_file(arguments):
        return broken
    setting = ".".join(re.findall(r'Parser key "([^"]+)"', text))
    for pattern, explain in CAUSES:
        if found := re.search(pattern, text):
            return explain(setting, text, *found.groups())
    return " ".join(text.split())


def _broken_file(arguments: Sequence[str]) -> str | None:
    for path in map(Path, arguments):
        if path.suffix in (".yaml", ".yml", ".json") and path.is_file():
            try:
                yaml.safe_load(path.read_text(encoding="utf-8"))
            except (yaml.YAMLError, UnicodeDecodeError) as error:
                return f"{path} cannot be read as YAML: {' '.join(str(error).split())}"
    return None


def _unknown_option(setting: str, text: str, option: str) -> str:
    classes = re.findall(r"given class_path '([^']+)'", text)
    if not classes:
        return f"there is no setting {option}: the nearest are {nearest(option.split('.')[0], TOP)}"
    settings = _settings_of(classes[-1])
    return f"there is no setting {setting}.{option}: {classes[-1].split('.')[-1]} has {nearest(option, settings)}"


def _settings_of(class_path: str) -> list[str]:
    module, _, name = class_path.rpartition(".")
    signature = inspect.signature(getattr(importlib.import_module(module), name))
    return [parameter for parameter in signature.parameters if parameter not in ("args", "kwargs")]


def _not_set(setting: str, text: str, names: str) -> str:
    missing = " and ".join(name.partition(".")[2] or name for name in sorted(names.split(", "), reverse=True))
    return f"{missing} must be set: name a config that does, such as --config configs/sae.yaml"


def _unrecognised(setting: str, text: str, argument: str) -> str:
    group, _, option = argument.partition(".")
    if group in GROUPS and option:
        return _unknown_in_group(setting, text, group, option)
    return f"there is no setting {argument}: the nearest are {nearest(group, TOP)}"


def _unknown_in_group(setting: str, text: str, group: str, option: str) -> str:
    settings = list(inspect.signature(GROUPS.get(group, Trainer)).parameters)
    return f"there is no setting {group}.{option}: the nearest are {nearest(option, settings)}"


def _no_file(setting: str, text: str, path: str) -> str:
    if path.endswith((".yaml", ".yml", ".json")) or "/" in path:
        return f"{setting}: there is no file {path}"
    return _no_class(setting, text, path)


def _no_class(setting: str, text: str, name: str) -> str:
    return f"{setting}: there is no class {name}: the nearest are {nearest(name, cli.class_names.__all__)}"


def _outside_range(setting: str, text: str, kind: str, reason: str) -> str:
    return f"{setting} must be a {kind}: {reason.removesuffix('.')}"


def _no_choice(setting: str, text: str, choices: str, given: str) -> str:
    return f"{setting} must be one of {choices.replace(chr(39), '')}, not {given!r}"


def _wrong_type(setting: str, text: str, kind: str) -> str:
    given = re.search(r"Given value: (.*)", text)
    return f"{setting} must be of type {kind}" + (f", not {given[1]!r}" if given else "")


CAUSES: list[tuple[str, Callable[..., str]]] = [
    (r"File does not exist: '([^']+)'", lambda setting, text, path: f"there is no file {path}"),
    (r"Expected a path but (\S+) either not accessible", _no_file),
    (r"Expected a dot import path string: (\S+)", _no_class),
    (r"Option '([^']+)' is not accepted", _unknown_option),
    (r"Group '([^']+)' does not accept option '([^']+)'", _unknown_in_group),
    (r"arguments are required: ([^\n]+)", _not_set),
    (r"Subcommand '[^']+' does not accept option '([^']+)'", _unrecognised),
    (r"unrecognized arguments: -*(\S+?)(?:[= ].*|$)", _unrecognised),
    (r"Not of type (\w+): ([^\n]*?)(?: Got value: .*)?(?:\n|$)", _outside_range),
    (r"Expected a typing\.Literal\[([^\]]+)\]\. Got value: (\S+)", _no_choice),
    (r"Expected a <class '(?!NoneType)([^']+)'>", _wrong_type),
]
