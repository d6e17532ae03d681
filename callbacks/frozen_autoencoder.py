"""The autoencoder by which a callback looks at a text encoder."""

from __future__ import annotations

from pathlib import Path

from lightning.pytorch import Trainer

from explanations import single_state
from exports import load_autoencoder
from lightning_modules.sparse_autoencoding import SparseAutoencoding
from run_store.layout import METADATA_NAME
from run_store.predictions import store_path_of

RUNS = "runs"


def frozen_autoencoder(
    trainer: Trainer, wanted: str, checkpoint: str, member: str | None, folder: str | None
) -> SparseAutoencoding:
    """In evaluation.

    Args:
        trainer: whose run lies among those that the autoencoder is looked for in.
        wanted: a run (folder, id or name), a checkpoint's folder, what `import` has made, or a folder in any format of
            `export`.
        checkpoint: of a run: last, best, or the folder of one.
        member: of a sweep, the one that is meant.
        folder: of all runs, where it is not that of the Trainer's.

    Raises:
        UserError: there is none, its run is not complete, or it is of several hook points.
    """
    own = Path(trainer.default_root_dir)
    root = str(store_path_of(own).parent) if (own / METADATA_NAME).exists() else RUNS
    model = load_autoencoder(wanted, folder or root, checkpoint, member)
    single_state(model)
    return model
