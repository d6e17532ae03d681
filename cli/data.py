"""`python main.py data`: light verbs around activation stores. A new one is a function here and its name in VERBS."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from jsonargparse.typing import PositiveInt

from cli.light_verbs import carry_out_one_of
from remote_files import is_url

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
        store: Folder of the store, or any URL that fsspec knows.
        picture: PNG file to draw, by default beside the folder of the store, for which {store} stands (of a URL its
            last part, in this folder); null draws none.
        rows: Look at about this many rows only, evenly spread; null looks at all of them.
        tokens: How many of the most frequent tokens to list.
        verify: Compare the sha256 of every file with the one that was written.
    """
    # imported here: help must not pay for torch
    from datamodules.shards import open_store
    from reports.store_picture import draw
    from reports.store_report import as_text, tokenizer_of, top_tokens
    from reports.store_statistics import gather_statistics

    opened = open_store(store, verify)
    statistics = gather_statistics(opened, rows)
    shares = top_tokens(statistics, tokenizer_of(opened), tokens)
    print(as_text(opened, statistics, shares, verify))
    if picture is not None:
        # with the dots resolved, so that "." has a name that a picture can lie beside
        beside = store.rstrip("/").rpartition("/")[2] if is_url(store) else store
        path = Path(picture.replace("{store}", os.path.abspath(beside)))
        draw(opened, statistics, shares, path)
        print(f"\npicture: {path}")


VERBS = {"inspect": inspect}


def run(arguments: Sequence[str]) -> int:
    """Carries out one verb; `arguments` start with `data`.

    Returns:
        The exit code.

    Raises:
        UserError: a verb or setting is unknown or has an impossible value, or the verb cannot do its work.
    """
    return carry_out_one_of(VERBS, "data", arguments[1:])
