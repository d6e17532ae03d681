"""The settings that a store is made with: told, kept and compared."""

from __future__ import annotations

import json
import os
from collections.abc import Container, Mapping
from typing import Any

from backbones import RowExtractor
from datamodules.shards import read_manifest
from datamodules.text_contexts import TextContexts
from run_store import UserError

FINGERPRINT = "corpus_fingerprint"


def describe_settings(extractor: RowExtractor, text: TextContexts) -> dict[str, Any]:
    """Every setting that decides what is in a store, known before anything is extracted; plain JSON."""
    settings: dict[str, Any] = json.loads(json.dumps({"extractor": extractor.describe(), "text": text.describe()}))
    return settings


def refuse_other_store(folder: str | os.PathLike[str], extractor: RowExtractor, text: TextContexts) -> None:
    """Makes sure that a finished store is the one that the settings ask for.

    Settings that decide no more than the last bit of a rounding may differ, such as how contexts were batched.

    Raises:
        UserError: there is none, or it was made with other settings.
    """
    ignored = {FINGERPRINT, "text.batch_size", "text.window_batches"}
    ignored |= {f"extractor.{name}" for name in extractor.rounding_settings()}
    refuse_other_settings(folder, read_manifest(folder).source, describe_settings(extractor, text), ignored)


def refuse_other_settings(
    folder: str | os.PathLike[str], there: Mapping[str, Any], here: Mapping[str, Any], ignored: Container[str] = ()
) -> None:
    """Makes sure that two sets of settings are the same.

    Args:
        folder: of the store, for the message.
        there: the settings of what is in it, nested.
        here: those that are asked for.
        ignored: dotted names of settings that may differ.

    Raises:
        UserError: they differ; it names each setting with both values.
    """
    stored, asked = _flat(there), _flat(here)
    differing = [name for name in stored | asked if stored.get(name) != asked.get(name) and name not in ignored]
    if differing:
        both = "; ".join(f"{name} is {stored.get(name)!r} there and {asked.get(name)!r} here" for name in differing)
        raise UserError(
            f"the activation store {folder} was made with other settings ({both}): set the store to another folder, or "
            "set them back"
        )


def places_of_models(settings: Mapping[str, Any]) -> list[str]:
    """Dotted names of the settings of an extractor that say where models run, which decides nothing in a store.

    Args:
        settings: with an `extractor` among them, as plain values.
    """
    return [name for name in _flat({"extractor": settings["extractor"]}) if name.endswith(".device")]


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings under dotted names."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat
