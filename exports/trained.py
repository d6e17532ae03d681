"""Finding the checkpoint that is to be exported, and its model."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from lightning.pytorch import LightningModule

from backbones import Encoder, TextEncoder
from exports.handover import refuse_damaged, refuse_incomplete
from exports.importing import CHECKPOINT
from lightning_modules.checkpoint_files import read_hyper_parameters
from lightning_modules.contrastive_embedding import ContrastiveEmbedding
from lightning_modules.sparse_autoencoding import SparseAutoencoding
from lightning_modules.sweep import ONLY
from run_store import UserError
from run_store.checkpoints import MANIFEST, StoredCheckpoint, list_checkpoints, newest_valid, read_checkpoint
from run_store.layout import CHECKPOINTS_NAME, METADATA_NAME
from run_store.listing import resolve_run
from run_store.record import RunRecord, read_record
from run_store.selection import Direction

Module = TypeVar("Module", bound=LightningModule)


@dataclass(frozen=True)
class Trained:
    """A checkpoint and the run that it is of; an imported one has none."""

    checkpoint: StoredCheckpoint
    record: RunRecord | None
    member: str | None = None
    """Of a sweep, the one that is meant."""

    @property
    def metrics(self) -> dict[str, float]:
        """What was measured on its weights in validation and test; of a member what is its own."""
        prefix = f"{self.member}/" if self.member else ""
        measured = self.checkpoint.metrics.items()
        own = {name.removeprefix(prefix): value for name, value in measured if name.startswith(prefix)}
        return {name: value for name, value in own.items() if value is not None and not name.startswith("train/")}


def find_trained(
    wanted: str,
    root: str = "runs",
    checkpoint: str = "last",
    metric: str = "val/fvu",
    direction: Direction = "min",
    member: str | None = None,
) -> Trained:
    """The checkpoint that a person means.

    Args:
        wanted: a run (folder, id or name), a checkpoint's folder, or what `import` has made.
        root: the folder of all runs.
        checkpoint: of a run: `last`, `best`, or the folder of one.
        metric: what the best is chosen by, as measured on that checkpoint's weights.
        direction: whether the lowest or the highest is the best.
        member: of a sweep, the one that is meant; the best is then chosen by its own metric.

    Raises:
        UserError: there is none, or its run is not complete.
    """
    folder = Path(wanted)
    alone = next((path for path in (folder, folder / CHECKPOINT) if (path / MANIFEST).is_file()), None)
    if alone is not None:
        return _of_a_complete_run(alone, member)
    run = resolve_run(root, wanted).folder
    folder = run / CHECKPOINTS_NAME
    refuse_incomplete(run)
    if checkpoint == "last":
        return Trained(newest_valid(folder).checkpoint, read_record(run), member)
    if checkpoint == "best":
        chosen = _best(folder, metric if member is None else f"{member}/{metric}", direction)
    else:
        chosen = read_checkpoint(checkpoint)
        if Path(checkpoint).resolve().parent != folder.resolve():
            raise UserError(f"{checkpoint} is no checkpoint of the run {run}: choose one in {folder}")
    refuse_damaged(chosen.path)
    return Trained(chosen, read_record(run), member)


def members_of(trained: Trained) -> list[str | None]:
    """Names of the members of the sweep that it is of; None alone where it is of no sweep.

    Raises:
        UserError: the checkpoint is damaged.
    """
    return [*(read_hyper_parameters(trained.checkpoint.path).get("members") or [None])]


def holds_encoder(trained: Trained) -> bool:
    """Whether a text encoder was trained, and no sparse autoencoder.

    Raises:
        UserError: the checkpoint is damaged.
    """
    return "encoder" in read_hyper_parameters(trained.checkpoint.path)


def load_trained(trained: Trained) -> SparseAutoencoding:
    """Its model, in evaluation; where a member is meant, that one alone.

    Raises:
        UserError: the checkpoint is damaged, of no sparse autoencoder, or has no such member.
    """
    model = _loaded(SparseAutoencoding, trained, "sparse autoencoder")
    return model if trained.member is None else alone(model, trained.member)


def load_encoder(trained: Trained) -> Encoder:
    """Its text encoder, in evaluation, with the prompts that it was trained with.

    Raises:
        UserError: the checkpoint is damaged, or of no text encoder.
    """
    encoder = _loaded(ContrastiveEmbedding, trained, "text encoder").encoder
    data = {} if trained.record is None else trained.record.spec.get("data", {}).get("init_args", {})
    for part in encoder.modules():
        if isinstance(part, TextEncoder):
            # the data may have had its own
            part.prompts = {**part.prompts, **(data.get("prompts") or {})}
    return encoder


def _loaded(kind: type[Module], trained: Trained, what: str) -> Module:
    path = trained.checkpoint.path
    try:
        model = kind.load_from_checkpoint(path).eval()
        # Lightning makes the classes of these settings and forgets the settings
        model.hparams.update(read_hyper_parameters(path))
        return model
    except (TypeError, KeyError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"{path} holds no {what} that can be made from its settings ({reason})") from error


def alone(model: SparseAutoencoding, name: str) -> SparseAutoencoding:
    """A member of a sweep as a model of its own, with the same weights.

    Raises:
        UserError: there is no such member.
    """
    member = copy.deepcopy(model.members.by_name[model.members.chosen(name)])
    member.hook_points, member.places = None, tuple(range(len(member.shapes)))
    single = SparseAutoencoding(
        member.autoencoder,
        normalization=model.make_normalization(),
        reconstruction_unit=member.autoencoder.reconstruction_unit,
        shapes=member.shapes,
    )
    single.members[ONLY] = member
    own = (model.hparams.get("members") or {}).get(name) or {}
    settings = {**model.hparams, "members": None, "shapes": member.shapes}
    single.hparams.update({**settings, "autoencoder": own.get("autoencoder") or model.hparams.get("autoencoder")})
    return single.eval()


def _of_a_complete_run(checkpoint: Path, member: str | None) -> Trained:
    run = checkpoint.resolve().parent.parent
    record = None
    if (run / METADATA_NAME).is_file():
        refuse_incomplete(run)
        record = read_record(run)
    refuse_damaged(checkpoint)
    return Trained(read_checkpoint(checkpoint), record, member)


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
