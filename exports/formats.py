"""The formats that there are. A new one is a module like saelens.py and a line here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from exports import plain, saelens, sparsify
from exports.files import Files, Read
from exports.unfolding import Start
from lightning_modules.sparse_autoencoding import SparseAutoencoding
from run_store import UserError

FormatName = Literal["saelens", "sparsify", "safetensors"]


class Format(NamedTuple):
    """How a model becomes files and files become a model."""

    config: str
    weights: str
    to_files: Callable[[SparseAutoencoding, Mapping[str, Any]], Files]
    from_files: Callable[[Read], Start]
    loading: str
    """What loads it, as a line of Python or of the command line; {folder} stands for where it lies."""


FORMATS: dict[FormatName, Format] = {
    "saelens": Format(
        saelens.CONFIG,
        saelens.WEIGHTS,
        saelens.to_files,
        saelens.from_files,
        'sae_lens.SAE.load_from_disk("{folder}")',
    ),
    "sparsify": Format(
        sparsify.CONFIG,
        sparsify.WEIGHTS,
        sparsify.to_files,
        sparsify.from_files,
        'sparsify.SparseCoder.load_from_disk("{folder}")',
    ),
    "safetensors": Format(
        plain.CONFIG,
        plain.WEIGHTS,
        plain.to_files,
        plain.from_files,
        "python main.py import {folder} --output imported/NAME",
    ),
}


def format_of(folder: Path) -> Format:
    """The format of a folder, by the names of its files.

    Raises:
        UserError: it is none of them.
    """
    for known in FORMATS.values():
        if (folder / known.weights).is_file():
            return known
    expected = ", ".join(f"{known.weights} ({name})" for name, known in FORMATS.items())
    raise UserError(f"{folder} holds no autoencoder that can be imported: it has none of {expected}")
