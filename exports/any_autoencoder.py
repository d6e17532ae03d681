"""The autoencoder that a person means, whether it is a run's or lies in files of any format."""

from __future__ import annotations

from pathlib import Path

from exports.files import Read
from exports.formats import FORMATS, format_of
from exports.importing import model_of
from exports.trained import find_trained, load_trained
from lightning_modules.sparse_autoencoding import SparseAutoencoding


def load_autoencoder(
    wanted: str, root: str = "runs", checkpoint: str = "last", member: str | None = None
) -> SparseAutoencoding:
    """Its model, in evaluation.

    Args:
        wanted: a run (folder, id or name), a checkpoint's folder, what `import` has made, or a folder in SAELens' or
            sparsify's format or our own.
        root: the folder of all runs.
        checkpoint: of a run: `last`, `best`, or the folder of one.
        member: of a sweep, the one that is meant.

    Raises:
        UserError: there is none, its run is not complete, or its files are damaged or none of ours.
    """
    folder = Path(wanted)
    if any((folder / known.weights).is_file() and (folder / known.config).is_file() for known in FORMATS.values()):
        known = format_of(folder)
        return model_of(known.from_files(Read.of(folder, known.config, known.weights)), folder)
    return load_trained(find_trained(wanted, root, checkpoint, member=member))
