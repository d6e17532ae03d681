"""`python main.py data`: light verbs around activation stores. A new one is a function here and its name in VERBS."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from inspect import signature
from pathlib import Path

from jsonargparse import ArgumentError, auto_cli
from jsonargparse.typing import PositiveInt

from run_store import UserError, nearest

BESIDE = "{store}.png"


def inspect(
    store: str,
    picture: str | None = BESIDE,
    rows: PositiveInt | None = None,
    tokens: PositiveInt = 20,
    verify: bool = True,
) -> None:
    """Tells what is in an activation store, as text and one picture.

    Args:
        store: Folder of the store.
        picture: PNG file to draw, by default beside the folder of the store, for which {store} stands; null draws none.
        rows: Look at about this many rows only, evenly spread; null looks at all of them.
        tokens: How many of the most frequent tokens to list.
        verify: Compare the sha256 of every file with the one that was written.
    """
    # imported here: help must not pay for torch
    from datamodules.shards import ActivationStore
    from reports.store_picture import draw
    from reports.store_report import as_text, tokenizer_of, top_tokens
    from reports.store_statistics import gather_statistics

    opened = ActivationStore(store, verify=verify)
    statistics = gather_statistics(opened, rows)
    shares = top_tokens(statistics, tokenizer_of(opened), tokens)
    print(as_text(opened, statistics, shares, verify))
    if picture is not None:
        # with the dots resolved, so that "." has a name that a picture can lie beside
        path = Path(picture.replace("{store}", os.path.abspath(store)))
        draw(opened, statistics, shares, path)
        print(f"\npicture: {path}")


VERBS = {"inspect": inspect}


def run(arguments: Sequence[str]) -> None:
    """Carries out one verb; `arguments` start with `data`.

    Raises:
        UserError: a verb or setting is unknown or has an impossible value, or the verb cannot do its work.
    """
    verb = next(iter(arguments[1:]), "--help")
    if verb not in VERBS and verb not in ("-h", "--help"):
        raise UserError(f"there is no verb data {verb!r}: the nearest are {nearest(verb, VERBS)}")
    try:
        auto_cli(
            dict(VERBS),
            args=[verb, *arguments[2:]],
            prog="python main.py data",
            exit_on_error=False,
            allow_abbrev=False,
        )
    except ArgumentError as error:
        raise UserError(f"data {verb}: {_explained(str(error), verb)}") from error


def _explained(text: str, verb: str) -> str:
    """The cause that the parser buried."""
    if found := re.search(r"arguments are required: (?:\w+\.)?(\w+)", text):
        return f"{found[1].upper()} is missing: python main.py data {verb} {found[1].upper()}"
    if found := re.search(r"unrecognized arguments: -*(\S+)", text):
        settings = signature(VERBS[verb]).parameters
        return f"there is no setting {found[1]}: the nearest are {nearest(found[1], settings)}"
    setting = ".".join(re.findall(r'Parser key "([^"]+)"', text))
    if found := re.search(r"Not of type (\w+)|Expected a <class '(?!NoneType)([^']+)'>", text):
        given = re.search(r"Given value: (.*)", text)
        return f"{setting} must be of type {found[1] or found[2]}" + (f", not {given[1]!r}" if given else "")
    return " ".join(text.split())
