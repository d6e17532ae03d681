"""Finding the checkpoint that is to be exported, and its model."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from exports.importing import CHECKPOINT
from lightning_modules.checkpoint_files import read_model
from lightning_modules.sparse_autoencoding import SparseAutoencoding
from run_store import UserError
from run_store.checkpoints import MANIFEST, StoredCheckpoint, list_checkpoints, newest_valid, read_checkpoint
from run_store.completion import completion_of
from run_store.layout import CHECKPOINTS_NAME, METADATA_NAME
from run_store.listing import resolve_run
from run_store.record import RunRecord, read_record
from run_store.selection import Direction


@dataclass(frozen=True)
class Trained:
    """A checkpoint and the run that it is of; an imported one has none."""

    checkpoint: StoredCheckpoint
    record: RunRecord | None


def find_trained(
    wanted: str,
    root: str = "runs",
    checkpoint: str = "last",
    metric: str = "val/fvu",
    direction: Direction = "min",
) -> Trained:
    """The checkpoint that a person means.

    Args:
        wanted: a run (folder, id or name), a checkpoint's folder, or what `import` has made.
        root: the folder of all runs.
        checkpoint: of a run: `last`, `best`, or the folder of one.
        metric: what the best is chosen by, as measured on that checkpoint's weights.
        direction: whether the lowest or the highest is the best.

    Raises:
        UserError: there is none, or its run is not complete.
    """
    folder = Path(wanted)
    alone = next((path for path in (folder, folder / CHECKPOINT) if (path / MANIFEST).is_file()), None)
    if alone is not None:
        return _of_a_complete_run(alone)
    run = resolve_run(root, wanted).folder
    _refuse_incomplete(run)
    if checkpoint not in ("last", "best"):
        return Trained(read_checkpoint(checkpoint), read_record(run))
    if checkpoint == "last":
        return Trained(newest_valid(run / CHECKPOINTS_NAME).checkpoint, read_record(run))
    return Trained(_best(run / CHECKPOINTS_NAME, metric, direction), read_record(run))


def load_trained(trained: Trained) -> SparseAutoencoding:
    """Its model, in evaluation.

    Raises:
        UserError: the checkpoint is damaged, or of no sparse autoencoder.
    """
    path = trained.checkpoint.path
    try:
        model = SparseAutoencoding.load_from_checkpoint(path).eval()
        # Lightning makes the classes of these settings and forgets the settings
        model.hparams.update(read_model(path)["hyper_parameters"])
        return model
    except (TypeError, KeyError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"{path} holds no sparse autoencoder that can be made from its settings ({reason})") from error


def _of_a_complete_run(checkpoint: Path) -> Trained:
    run = checkpoint.resolve().parent.parent
    if not (run / METADATA_NAME).is_file():
        return Trained(read_checkpoint(checkpoint), None)
    _refuse_incomplete(run)
    return Trained(read_checkpoint(checkpoint), read_record(run))


def _refuse_incomplete(run: Path) -> None:
    completion = completion_of(run)
    if not completion.complete:
        raise UserError(
            f"the run {run} is not complete, {completion.reason}: finish it by python main.py runs resume {run}"
        )


def _best(folder: Path, metric: str, direction: Direction) -> StoredCheckpoint:
    measured = {
        checkpoint.path: (value, checkpoint)
        for checkpoint in list_checkpoints(folder)
        if (value := checkpoint.metrics.get(metric)) is not None and math.isfinite(value)
    }
    if not measured:
        raise UserError(f"no checkpoint in {folder} has a value of {metric}: choose another metric, or the last one")
    choose = min if direction == "min" else max
    return choose(measured.values(), key=lambda pair: pair[0])[1]
