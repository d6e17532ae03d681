"""`model: run:NAME`: settings that mean a model which a run has trained are given its folder before all is decided.

So the identity of a run is that of the weights that it reads.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from jsonargparse import Namespace

SETTINGS = ("model", "tokenizer")
PREFIX = "run:"


def settle_models(settings: Namespace, root: str) -> None:
    """Puts the folder of the encoder in the place of every `run:NAME`, in the settings themselves.

    Args:
        settings: of one command, nested.
        root: the folder of all runs.

    Raises:
        UserError: a run is missing or incomplete, or has no encoder that could be read.
    """
    for inside, name in list(_places(settings)):
        from exports.run_encoders import encoder_folder  # takes its time, and few settings mean a run

        inside[name] = encoder_folder(inside[name], root).as_posix()


def _places(settings: Any) -> Iterator[tuple[Any, str]]:
    """Where a setting means a run: what holds it, and its name there."""
    if isinstance(settings, list):
        for each in settings:
            yield from _places(each)
        return
    if not isinstance(settings, Namespace | dict):
        return
    entries = settings if isinstance(settings, dict) else vars(settings)
    for name, value in entries.items():
        if name in SETTINGS and isinstance(value, str) and value.startswith(PREFIX):
            yield entries, name
        else:
            yield from _places(value)
