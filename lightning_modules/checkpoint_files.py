"""What a checkpoint holds, as files: model weights as safetensors, the rest as tensors and plain values.

`model.safetensors` stands on its own: its header carries the hyper-parameters too, so that a trained model can be
loaded without the optimiser's state, which is twice as large. `state.ckpt` is everything else that a resume needs.
What is cut by latents lies beside them in parts (`sharded_files.py`), which are read as whole tensors or as own rows.
"""

from __future__ import annotations

import copy
import io
import json
import os
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from lightning_modules.sharded_files import (
    EVERY_ROW,
    OwnRows,
    Part,
    mapped,
    put_back,
    read_rows,
    row_files,
    take_apart,
)
from run_store import UserError
from run_store.checkpoints import damage

WEIGHTS = "model.safetensors"
STATE = "state.ckpt"
# what `load_from_checkpoint` reads of a checkpoint beside the weights
VERSIONS = "state_dict_versions"
HEADER = ("hyper_parameters", "hparams_name", "pytorch-lightning_version", "epoch", "global_step", VERSIONS)

Spare = dict[tuple[torch.Size, torch.dtype], list[Tensor]]
MapLocation = Callable[..., Any] | torch.device | str | dict[str, str] | None


@dataclass(frozen=True)
class CheckpointParts:
    """A Lightning checkpoint, sorted by the file that its parts go to.

    Args:
        weights: tensors of the model, each once, none sharing memory with another.
        shared: name of a tied tensor → name in `weights` that holds it.
        rest: the checkpoint without `weights` and `shared`.
        rows: what this process holds of tensors that are cut by latents, which the others are without.
    """

    weights: dict[str, Tensor]
    shared: dict[str, str]
    rest: dict[str, Any]
    rows: OwnRows | None = None

    @classmethod
    def of(cls, checkpoint: Mapping[str, Any]) -> CheckpointParts:
        """Sorts without copying tensors, but for those of the model that are views of a part of another."""
        rest = dict(checkpoint)
        state = rest.pop("state_dict", {})
        tensors = {name: value for name, value in state.items() if isinstance(value, Tensor)}
        if others := {name: value for name, value in state.items() if name not in tensors}:
            rest["state_dict"] = others
        if versions := getattr(state, "_metadata", None):
            rest[VERSIONS] = {name: dict(value) for name, value in versions.items()}
        tensors, rest, rows = take_apart(tensors, mapped(rest, lambda _, value: _plain(value)))
        weights, shared = _each_once(tensors)
        return cls(weights, shared, rest, rows)

    def snapshot(self, spent: CheckpointParts | None = None) -> CheckpointParts:
        """A copy on the CPU that training cannot change any more.

        Args:
            spent: an older snapshot that nobody reads any more. Its memory is written over, which takes a third of the
                time of asking the system for new memory.
        """
        spare: Spare = {}
        for tensor in [] if spent is None else spent.tensors():
            spare.setdefault((tensor.shape, tensor.dtype), []).append(tensor)
        rows = self.rows
        if rows is not None:
            rows = OwnRows(_copied(rows.weights, spare), _copied(rows.state, spare), rows.part)
        return CheckpointParts(_copied(self.weights, spare), self.shared, _copied(self.rest, spare), rows)

    def tensors(self) -> list[Tensor]:
        """Every tensor there is in this process."""
        cut = [] if self.rows is None else [*self.rows.weights.values(), *self.rows.state.values()]
        return [*self.weights.values(), *_tensors_in(self.rest), *cut]

    def moment(self) -> tuple[int, int]:
        """Optimiser step and epoch that it is of."""
        return int(self.rest.get("global_step", 0)), int(self.rest.get("epoch", 0))

    def bytes(self) -> int:
        """About what the files will take, those of all ranks."""
        ranks = 1 if self.rows is None else self.rows.part.ranks
        return sum(tensor.nbytes + 256 for tensor in self.tensors()) * ranks

    def write(self, folder: Path) -> None:
        """Writes both files into a folder; `rows` are left to whoever holds them."""
        header = {name: self.rest[name] for name in HEADER if name in self.rest}
        written = {"format": "pt", "shared": json.dumps(self.shared)}
        if (text := _as_json(header)) is not None:
            written["checkpoint"] = text
        save_file({name: value.contiguous() for name, value in self.weights.items()}, folder / WEIGHTS, written)
        with open(folder / STATE, "wb") as file:
            torch.save(self.rest, file)


def read_checkpoint(
    folder: str | os.PathLike[str], map_location: MapLocation = "cpu", part: Part = EVERY_ROW
) -> dict[str, Any]:
    """The whole checkpoint as Lightning dumped it, every hash looked at first; of what is cut by latents the rows that
    `part` says.

    Raises:
        UserError: it is missing or damaged, or holds more than tensors and plain values.
    """
    folder = Path(folder)
    _refuse_damage(folder)
    checkpoint = put_back(load_plain(folder / STATE, map_location), read_rows(folder, "state", part))
    return _with_state_dict(checkpoint, read_weights(folder / WEIGHTS, part)[0])


def read_model(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """Weights and hyper-parameters alone, as a checkpoint that `load_from_checkpoint` understands.

    Args:
        folder: a checkpoint.

    Raises:
        UserError: it is missing or damaged.
    """
    folder = Path(folder)
    _refuse_damage(folder, model_alone=True)
    weights, header = read_weights(folder / WEIGHTS)
    if header is None:  # it holds what JSON cannot
        whole = read_checkpoint(folder)
        return {name: whole[name] for name in (*HEADER, "state_dict") if name in whole}
    return _with_state_dict(header, weights)


def read_hyper_parameters(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """What the model was made with, without reading its weights.

    Raises:
        UserError: the checkpoint is missing or damaged.
    """
    folder = Path(folder)
    _refuse_damage(folder, model_alone=True)
    header = read_header(folder / WEIGHTS)
    if header is None:  # it holds what JSON cannot
        header = read_checkpoint(folder)
    return dict(header.get("hyper_parameters", {}))


def as_one_file(path: str | os.PathLike[str]) -> Any:
    """What `LightningModule.load_from_checkpoint` can read: of a folder its model as a file in memory, else the path.

    Raises:
        UserError: the checkpoint is damaged.
    """
    if not os.path.isdir(path):
        return path
    buffer = io.BytesIO()
    torch.save(read_model(path), buffer)
    buffer.seek(0)
    return buffer


def read_weights(
    path: str | os.PathLike[str], part: Part = EVERY_ROW
) -> tuple[dict[str, Tensor], dict[str, Any] | None]:
    """Tensors of a weights file with tied ones tied, and its header, None where it has none; with those that lie beside
    it cut by latents, of which only the rows are read that `part` says.

    Raises:
        UserError: it is damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            written = file.metadata() or {}
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (it is not a dict)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is missing or damaged: use another checkpoint") from error
    weights |= read_rows(Path(path).parent, "model", part)
    weights |= {name: weights[holder] for name, holder in json.loads(written.get("shared", "{}")).items()}
    return weights, _header_in(written)


def read_header(path: str | os.PathLike[str]) -> dict[str, Any] | None:
    """The header of a weights file; None where it has none.

    Raises:
        UserError: it is damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return _header_in(file.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is missing or damaged: use another checkpoint") from error


def load_plain(path: str | os.PathLike[str], map_location: MapLocation = "cpu") -> dict[str, Any]:
    """torch.load of tensors and plain values.

    Raises:
        UserError: the file is missing, damaged, or holds anything else.
    """
    if not os.path.isfile(path):
        raise UserError(f"there is no checkpoint {path}")
    try:
        return torch.load(path, map_location=map_location, weights_only=True)  # type: ignore[no-any-return]
    except (UnpicklingError, RuntimeError, EOFError, OSError) as error:
        raise UserError(f"the checkpoint {path} is damaged or not one of ours: resume from another one") from error


def _header_in(written: Mapping[str, str]) -> dict[str, Any] | None:
    return json.loads(written["checkpoint"]) if "checkpoint" in written else None


def _with_state_dict(rest: dict[str, Any], weights: dict[str, Tensor]) -> dict[str, Any]:
    """The checkpoint that `CheckpointParts.of` has taken apart. What is no tensor in a state_dict is in the rest."""
    state = OrderedDict({**weights, **rest.get("state_dict", {})})
    if versions := rest.pop(VERSIONS, None):
        state._metadata = versions  # type: ignore[attr-defined]
    return {**rest, "state_dict": state}


def _refuse_damage(folder: Path, model_alone: bool = False) -> None:
    if not folder.is_dir():
        raise UserError(f"there is no checkpoint {folder}")
    only = [WEIGHTS, *row_files(folder, "model")] if model_alone else None
    if why := damage(folder, only):
        raise UserError(f"the checkpoint {folder} is damaged ({why}): use another one of {folder.parent}")


def _plain(value: Any) -> Any:
    """A number or text of a class of its own as what it is. The command line gives settings as jsonargparse's
    subclasses of int and float, and a checkpoint that has one of them in whatever state would not load again.
    """
    kind = next((kind for kind in (bool, int, float, str) if isinstance(value, kind)), None)
    return value if kind in (None, type(value)) else kind(value)


def _each_once(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """safetensors refuses tensors that share memory: those that are one are written once, and those that are parts of
    one memory are copied apart.
    """
    weights: dict[str, Tensor] = {}
    shared: dict[str, str] = {}
    holders: dict[tuple[Any, ...], str] = {}
    memories: set[Any] = set()
    for name, tensor in tensors.items():
        tensor = tensor.detach()
        memory = (tensor.device, tensor.untyped_storage().data_ptr())
        place = (*memory, tensor.storage_offset(), tensor.shape, tensor.stride(), tensor.dtype)
        if tensor.numel() and place in holders:
            shared[name] = holders[place]
            continue
        weights[name] = tensor.clone() if tensor.numel() and memory in memories else tensor
        holders[place] = name
        memories.add(memory)
    return weights, shared


def _copied(value: Any, spare: Spare) -> Any:
    """A deep copy with every tensor on the CPU, in spare memory where there is some of the same shape."""
    if isinstance(value, Tensor):
        fitting = spare.get((value.shape, value.dtype))
        return fitting.pop().copy_(value.detach()) if fitting else value.detach().to("cpu", copy=True)
    if isinstance(value, Mapping):
        copies = {key: _copied(inner, spare) for key, inner in value.items()}
        return OrderedDict(copies) if isinstance(value, OrderedDict) else copies
    if type(value) in (list, tuple):
        return type(value)(_copied(inner, spare) for inner in value)
    return copy.deepcopy(value)


def _tensors_in(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    return [tensor for part in inner for tensor in _tensors_in(part)]


def _as_json(value: Any) -> str | None:
    """None where JSON would give back something else than it was given."""
    try:
        text = json.dumps(value)
    except (TypeError, ValueError):
        return None
    return text if json.loads(text) == value else None
