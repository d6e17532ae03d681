"""Verbs that are plain functions, whose signature and docstring become the options. None of them pays for importing
torch or lightning before it needs them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Container, Mapping, Sequence
from inspect import Parameter, signature
from itertools import takewhile
from typing import Any

from jsonargparse import ArgumentError, auto_cli

from run_store import UserError, nearest

Verb = Callable[..., Any]


def carry_out_one_of(verbs: Mapping[str, Verb], command: str, arguments: Sequence[str]) -> int:
    """Carries out one of several verbs.

    Args:
        verbs: by name.
        command: what they belong to, such as `runs`.
        arguments: behind it.

    Returns:
        The exit code.

    Raises:
        UserError: a verb or setting is unknown or has an impossible value, or the verb cannot do its work.
    """
    verb = next(iter(arguments), "--help")
    if verb in ("-h", "--help"):
        return _called(dict(verbs), f"python main.py {command}", [verb])
    if verb not in verbs:
        raise UserError(f"there is no verb {command} {verb!r}: the nearest are {nearest(verb, verbs)}")
    return carry_out(verbs[verb], f"{command} {verb}", arguments[1:])


def carry_out(verb: Verb, command: str, arguments: Sequence[str]) -> int:
    """Carries out one verb. Settings without a default stand first, unless they are keyword-only.

    Args:
        verb: what does the work.
        command: what it is called, such as `runs show`.
        arguments: behind that.

    Returns:
        The exit code.

    Raises:
        UserError: a setting is unknown, missing or has an impossible value, or the verb cannot do its work.
    """
    try:
        return _called(verb, f"python main.py {command}", _spelled_out(arguments, verb))
    except ArgumentError as error:
        raise UserError(f"{command}: {_explained(str(error), verb, command)}") from error


def _spelled_out(arguments: Sequence[str], verb: Verb) -> list[str]:
    """Gives each setting the one value that the parser wants: a bare `--json` is true, `--epochs 1 3` a list, and so
    are all values that stand first, `runs compare A B`, where a verb begins with a list. `--push-to-hub` is
    `--push_to_hub`.
    """
    kinds = {f"--{name}": str(setting.annotation) for name, setting in signature(verb).parameters.items()}
    spelled: list[str] = []
    rest = list(arguments)
    first = next(iter(signature(verb).parameters.values()), None)
    if first is not None and first.default is Parameter.empty and str(first.annotation).startswith("list["):
        values = list(takewhile(lambda value: not value.startswith("-"), rest))
        spelled += [json.dumps(values)] if values else []
        del rest[: len(values)]
    while rest:
        option = _by_its_name(rest.pop(0), kinds)
        values = list(takewhile(lambda value: not value.startswith("--"), rest))
        if kinds.get(option) == "bool" and not values:
            spelled.append(f"{option}=true")
        elif kinds.get(option, "").startswith("list[") and values and not values[0].startswith("["):
            # an option that is given again adds to its list
            start = [] if f"{option}=[]" in spelled else [f"{option}=[]"]
            spelled += [*start, *(f"{option}+={value}" for value in values)]
            del rest[: len(values)]
        else:
            spelled.append(option)
    return spelled


def _by_its_name(option: str, known: Container[str]) -> str:
    name, equals, value = option.partition("=")
    underscored = f"--{name[2:].replace('-', '_')}"
    return f"{underscored}{equals}{value}" if name.startswith("--") and underscored in known else option


def _called(component: Any, program: str, arguments: Sequence[str]) -> int:
    code = auto_cli(component, args=list(arguments), prog=program, exit_on_error=False, allow_abbrev=False)
    return int(code or 0)


def _explained(text: str, verb: Verb, command: str) -> str:
    """The cause that the parser buried."""
    settings = signature(verb).parameters
    if found := re.search(r"arguments are required: (?:\w+\.)?(?:--)?(\w+)", text):
        option = settings[found[1]].kind is Parameter.KEYWORD_ONLY
        name = f"--{found[1]} VALUE" if option else found[1].upper()
        return f"{name.split()[0]} is missing: python main.py {command} {name}"
    if found := re.search(r"unrecognized arguments: -*(\S+)", text):
        return f"there is no setting {found[1]}: the nearest are {nearest(found[1], settings)}"
    setting = ".".join(re.findall(r'Parser key "([^"]+)"', text))
    given = re.search(r"Given value: (.*)|Got value: (.*)", text)
    if setting and given:
        value = given[1] or given[2]
        if kind := re.search(r"Not of type (\w+)", text):
            return f"{setting} must be of type {kind[1]}, not {value!r}"
        if choices := re.search(r"Expected a typing\.Literal\[([^\]]+)\]", text):
            return f"{setting} cannot be {value!r}: choose one of {choices[1].replace(chr(39), '')}"
        return f"{setting} cannot be {value!r}: python main.py {command} --help"
    return " ".join(text.split())
