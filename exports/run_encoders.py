"""The text encoder that a run has trained, as a folder that everything here reads models from: `model: run:NAME`."""

from __future__ import annotations

import math
from pathlib import Path

from backbones import ConcatenatedEncoder
from backbones.sources import quiet
from exports.encoder_card import Training
from exports.encoders import export_encoder
from exports.handover import refuse_incomplete
from exports.kinds import EncoderKind
from exports.trained import Trained, holds_encoder, load_encoder
from run_store import UserError
from run_store.checkpoints import StoredCheckpoint, damage, list_checkpoints
from run_store.layout import CHECKPOINTS_NAME
from run_store.listing import FoundRun, find_runs, resolve_run
from run_store.record import read_record

RUN_PREFIX = "run:"
FOLDER = "encoder"
"""In the run's folder: one folder a checkpoint that was ever asked for."""
WEIGHTS = "model.safetensors"


def encoder_folder(model: str, root: str) -> Path:
    """The folder of the encoder that a run has trained, in sentence-transformers' form with adapters merged in.

    It is written into the run's folder when it is first asked for, whole or not at all. Its name has the first digits
    of the checkpoint's sha256: other weights are another folder.

    Args:
        model: `run:` and the name of a run, whose newest complete one is meant, or a run's folder or id.
        root: the folder of all runs.

    Returns:
        RUN/encoder/step-N-XXXXXXXX, of the checkpoint with the highest val/ndcg@10, or of the newest where none was
        measured.

    Raises:
        UserError: there is no such run, it is not complete, it trained no text encoder or one that is joined of
            several, or its checkpoint is damaged.
    """
    run = _complete(model, root)
    chosen = _best(run / CHECKPOINTS_NAME)
    if chosen is None:
        raise UserError(f"model {model} has no checkpoint in {run / CHECKPOINTS_NAME}: train it again, or name another")
    folder = run / FOLDER / f"{chosen.path.name}-{chosen.files[WEIGHTS].sha256[:8]}"
    if not _is_whole(folder):
        _export(model, Trained(chosen, read_record(run)), run, folder)
    return folder


def _export(model: str, trained: Trained, run: Path, folder: Path) -> None:
    checkpoint = trained.checkpoint.path
    if problem := damage(checkpoint):
        raise UserError(
            f"model {model} means the checkpoint {checkpoint}, which is damaged ({problem}): train it again"
        )
    if not holds_encoder(trained):
        raise UserError(f"model {model} means {run}, which trained no text encoder: name a run of ContrastiveEmbedding")
    refuse_incomplete(run)
    encoder = load_encoder(trained)
    if isinstance(encoder, ConcatenatedEncoder):
        raise UserError(
            f"model {model} means {run}, whose encoder is {len(encoder.parts)} models side by side: export it by "
            f"python main.py export --run {run} --format sentence-transformers, and name the folder of one part"
        )
    try:
        with quiet():
            export_encoder(encoder, folder, "sentence-transformers", Training.of(trained))
    except (UserError, OSError):
        if not _is_whole(folder):  # another process was faster
            raise


def _is_whole(folder: Path) -> bool:
    return (folder / "modules.json").is_file()


def _complete(model: str, root: str) -> Path:
    wanted = model.removeprefix(RUN_PREFIX)
    if not wanted:
        raise UserError(f"model {model} names no run: write {RUN_PREFIX}NAME")
    named = find_runs(root, name=wanted).runs
    found: list[FoundRun] = named or [resolve_run(root, wanted)]
    for run in found:
        if run.status == "complete":
            return run.folder
    raise UserError(
        f"model {model} needs a complete run, and {found[0].folder} is {found[0].status}: finish it by "
        f"python main.py runs resume {found[0].folder}"
    )


def _best(folder: Path) -> StoredCheckpoint | None:
    """As retention keeps it: the highest of what retrieval is measured by; the newest where nothing was measured."""
    found = [checkpoint for checkpoint in list_checkpoints(folder) if WEIGHTS in checkpoint.files]
    measured = [(value, at) for at, each in enumerate(found) if (value := _score(each)) is not None]
    return found[max(measured)[1]] if measured else found[-1] if found else None


def _score(checkpoint: StoredCheckpoint) -> float | None:
    value = checkpoint.metrics.get(EncoderKind.metric)
    return value if value is not None and math.isfinite(value) else None
