"""Our own files: autoencoder.json and autoencoder.safetensors, which hold every variant and wiring as it is.

The JSON has `format`, `version` and `model`: the settings of `SparseAutoencoding` that the tensors were made with,
classes by their short names. The tensors have their names in the state_dict of a `Trainee`, without the counters of
training; nothing is folded. Only classes of `lightning_modules.autoencoders` are ever made from such a file.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import lightning_modules.autoencoders
from exports.files import Files, Read
from exports.unfolding import Start
from lightning_modules.autoencoders import Autoencoder, Normalization, Wiring
from lightning_modules.sparse_autoencoding import SparseAutoencoding
from lightning_modules.trainee import Trainee
from run_store import UserError, nearest

CONFIG = "autoencoder.json"
WEIGHTS = "autoencoder.safetensors"
FORMAT = "fulgurite-autoencoder"
VERSION = 1
SUPERFLUOUS = "one_normalization."
SETTINGS = ("autoencoder", "normalization", "reconstruction_unit", "shapes")
CLASSES = {
    name: kind
    for name, kind in vars(lightning_modules.autoencoders).items()
    if isinstance(kind, type) and issubclass(kind, Autoencoder | Wiring | Normalization)
}


def to_files(model: SparseAutoencoding, about: Mapping[str, Any]) -> Files:
    """What goes to disk.

    Args:
        model: built and trained.
        about: metadata, which stands beside.

    Raises:
        UserError: it does not know its own settings.
    """
    if "autoencoder" not in model.hparams:
        raise UserError(
            "the model does not know the settings of its autoencoder, since a script has made it: "
            "train it by python main.py fit"
        )
    settings = {name: _with_short_names(model.hparams.get(name)) for name in SETTINGS}
    tensors = {name: value.detach() for name, value in model.only.state_dict().items() if name not in Trainee.counters}
    config = {"format": FORMAT, "version": VERSION, "model": settings, "metadata": dict(about)}
    return Files(CONFIG, config, WEIGHTS, tensors)


def from_files(read: Read) -> Start:
    """The model that they hold.

    Raises:
        UserError: they are of a newer release or malformed.
    """
    if (version := read.setting("version", int)) != VERSION or read.setting("format", str) != FORMAT:
        raise UserError(f"{read.config_path} is of version {version} and this release reads {VERSION}: update it")
    settings = read.setting("model", dict)
    if unknown := sorted(settings.keys() - set(SETTINGS)) or not settings.get("autoencoder"):
        raise UserError(f"{read.config_path}: model has {', '.join(SETTINGS)} and nothing else, not {unknown}")
    known = {name: _with_long_names(value, read) for name, value in settings.items() if value is not None}
    # early files have the normalisation once more, as it was before it had seen any data
    return Start(known, {name: value for name, value in read.tensors.items() if not name.startswith(SUPERFLUOUS)})


def _with_short_names(value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    short = {name: _with_short_names(inner) for name, inner in value.items()}
    return short | {"class_path": short["class_path"].rpartition(".")[2]} if "class_path" in short else short


def _with_long_names(value: Any, read: Read) -> Any:
    if not isinstance(value, Mapping):
        return value
    long = {name: _with_long_names(inner, read) for name, inner in value.items()}
    if "class_path" not in long:
        return long
    if not isinstance(name := long["class_path"], str) or name not in CLASSES:
        raise UserError(
            f"{read.config_path} names the class {name!r}, which is none of ours: the nearest are "
            f"{nearest(str(name), CLASSES)}"
        )
    return long | {"class_path": f"lightning_modules.autoencoders.{name}"}
