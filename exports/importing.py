"""From a published autoencoder to a checkpoint that can be measured and trained on."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import lightning
import torch
import yaml
from jsonargparse import ArgumentError
from lightning.pytorch.cli import instantiate_module

from exports.files import Read
from exports.formats import format_of
from exports.unfolding import Start
from lightning_modules.checkpoint_files import CheckpointParts
from lightning_modules.sparse_autoencoding import SparseAutoencoding
from run_store import UserError, atomic_folder
from run_store.checkpoints import new_checkpoint

CHECKPOINT = "checkpoint"
OVERLAY = "config.yaml"
MODEL = "lightning_modules.sparse_autoencoding.SparseAutoencoding"


def import_autoencoder(source: Path, output: Path) -> SparseAutoencoding:
    """Writes a folder that `fit`, `validate` and `test` start from.

    Args:
        source: folder in SAELens' or sparsify's format or our own.
        output: gets checkpoint/, and config.yaml, to be composed with that of a job.

    Returns:
        The model.

    Raises:
        UserError: the source cannot be read or has no counterpart here, or there is something in `output` already.
    """
    known = format_of(source)
    start = known.from_files(Read.of(source, known.config, known.weights))
    model = model_of(start, source)
    with atomic_folder(output) as folder:
        with new_checkpoint(folder / CHECKPOINT, step=0, epoch=0) as checkpoint:
            CheckpointParts.of(_as_checkpoint(model, start)).write(checkpoint)
        # where weights come from, so that the same files serve fit, validate and test
        run = {"source": "path", "path": (output / CHECKPOINT).as_posix()}
        overlay = {"run": run, "model": {"class_path": MODEL, "init_args": start.settings}}
        (folder / OVERLAY).write_text(yaml.safe_dump(overlay, sort_keys=False), encoding="utf-8")
    return model


def model_of(start: Start, source: Path) -> SparseAutoencoding:
    """The model with its weights.

    Args:
        start: settings and tensors.
        source: where they are from, for messages.

    Raises:
        UserError: a setting is impossible, or the tensors are not those of such a model.
    """
    try:
        model: SparseAutoencoding = instantiate_module(SparseAutoencoding, copy.deepcopy(start.settings))
        model.configure_model()
    # sizes that nothing could hold are among what a file may say
    except (ArgumentError, TypeError, ValueError, RuntimeError, MemoryError) as error:
        raise UserError(f"the settings in {source} are none of ours ({' '.join(str(error).split())[:300]})") from error
    state = model.only.state_dict()
    tensors = start.tensors
    needed = {name for name, _ in model.autoencoder.named_parameters(prefix="autoencoder")}
    unlike = sorted((tensors.keys() - state.keys()) | (needed - tensors.keys()))
    unlike += [name for name in sorted(tensors.keys() & state.keys()) if tensors[name].shape != state[name].shape]
    if unlike:
        raise UserError(f"the tensors of {source} do not fit its settings ({', '.join(unlike[:5])})")
    if bad := [name for name, value in tensors.items() if not value.isfinite().all()]:
        raise UserError(f"{source} has values that are not finite in {', '.join(bad[:5])}")
    with torch.no_grad():
        for name, value in tensors.items():
            state[name].copy_(value)
    return model.eval()


def _as_checkpoint(model: SparseAutoencoding, start: Start) -> dict[str, Any]:
    """What Lightning needs to load a model, as it would have saved it."""
    settings = {"_class_path": MODEL, **start.settings, "_instantiator": "lightning.pytorch.cli.instantiate_module"}
    return {
        "state_dict": model.state_dict(),
        "hyper_parameters": settings,
        "hparams_name": "kwargs",
        "pytorch-lightning_version": lightning.__version__,
        "epoch": 0,
        "global_step": 0,
    }
