"""Hyper-parameters that a checkpoint may hold: plain values, so that it loads with weights_only=True."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from lightning.pytorch import LightningModule

PLAIN = (bool, int, float, str)


def keep_plain(module: LightningModule) -> None:
    """Turns what `save_hyperparameters` collected into plain values.

    The command line gives settings as jsonargparse's own subclasses of int and float: they become int and float.
    Without the command line some settings are objects (an autoencoder, a function that makes an optimiser): they are
    left out, and `load_from_checkpoint` must be given them again.
    """
    for name, value in list(module.hparams.items()):
        if _is_plain(value):
            module.hparams[name] = _plain(value)
        else:
            del module.hparams[name]


def _is_plain(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(_is_plain(inner) for inner in value.values())
    if isinstance(value, list | tuple):
        return all(_is_plain(inner) for inner in value)
    return value is None or isinstance(value, (*PLAIN, PurePath))


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, PurePath):
        return str(value)
    return next((kind(value) for kind in PLAIN if isinstance(value, kind)), None)
