"""The part of a checkpoint that is cut by latents: every rank writes its own rows, and any number of ranks reads them.

Beside `model.safetensors` and `state.ckpt`, which hold what all ranks have, each of r ranks writes
`model.rows-i-of-r.safetensors`, its rows of the weights by name, and `state.rows-i-of-r.safetensors`, its rows of all
else by the JSON list of keys and places that leads there, such as ["optimizer_states", 0, "state", 0, "exp_avg"]. The
rows of all files, one behind the other, are the whole tensors. torch.distributed.checkpoint would do the same, with a
pickle that says where what is.
"""

from __future__ import annotations

import json
import re
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from lightning_modules.functional import is_sharded, local
from run_store import UserError

Kind = Literal["model", "state"]
_NAME = re.compile(r"(model|state)\.rows-(\d+)-of-(\d+)\.safetensors")


class Part(NamedTuple):
    """The rows of one of several readers or writers, who have as many each."""

    rank: int
    ranks: int


EVERY_ROW = Part(0, 1)


@dataclass(frozen=True)
class OwnRows:
    """What this process holds of a checkpoint's tensors that are cut.

    Args:
        weights: by name.
        state: by the JSON list that leads there.
        part: which rows they are.
    """

    weights: dict[str, Tensor]
    state: dict[str, Tensor]
    part: Part

    def write(self, folder: Path) -> list[Path]:
        """Writes both files into a folder that other ranks write to, too, and returns their paths."""
        kinds: dict[Kind, dict[str, Tensor]] = {"model": self.weights, "state": self.state}
        paths = []
        for kind, tensors in kinds.items():
            paths.append(folder / f"{kind}.rows-{self.part.rank}-of-{self.part.ranks}.safetensors")
            save_file({name: value.contiguous() for name, value in tensors.items()}, paths[-1], {"format": "pt"})
        return paths


def take_apart(weights: Mapping[str, Tensor], rest: Any) -> tuple[dict[str, Tensor], Any, OwnRows | None]:
    """Weights and all else without what is cut, and that; None where nothing is."""
    own: dict[Kind, dict[str, Tensor]] = {"model": {}, "state": {}}
    parts: list[Part] = []

    def kept(kind: Kind, name: str, value: Tensor) -> Tensor | None:
        if not is_sharded(value):
            return value
        if not value.placements[0].is_shard():  # type: ignore[attr-defined]
            return local(value.detach())
        mesh = value.device_mesh  # type: ignore[attr-defined]
        parts.append(Part(mesh.get_local_rank(), mesh.size()))
        own[kind][name] = local(value.detach())
        return None

    in_all = {name: kept("model", name, value) for name, value in weights.items()}
    rest = mapped(rest, lambda path, value: kept("state", json.dumps(path), value) if is_sharded(value) else value)
    whole = {name: value for name, value in in_all.items() if value is not None}
    return whole, rest, OwnRows(own["model"], own["state"], parts[0]) if parts else None


def put_back(rest: Any, state: Mapping[str, Tensor]) -> Any:
    """All else of a checkpoint, with what was cut out of it."""
    return mapped(rest, lambda path, value: state.get(json.dumps(path), value) if value is None else value)


def mapped(value: Any, change: Callable[[list[str | int], Any], Any], path: list[str | int] | None = None) -> Any:
    """change(path, leaf) of everything that is no dict, list or tuple, in the same ones."""
    path = path or []
    if isinstance(value, Mapping):
        inner = {key: mapped(part, change, [*path, key]) for key, part in value.items()}
        return OrderedDict(inner) if isinstance(value, OrderedDict) else inner
    if type(value) in (list, tuple):
        return type(value)(mapped(part, change, [*path, place]) for place, part in enumerate(value))
    return change(path, value)


def row_files(folder: Path, kind: Kind) -> list[str]:
    """Names of a folder's files of cut tensors, in the order of their rows."""
    matches = (_NAME.fullmatch(path.name) for path in folder.iterdir())
    found = {int(match[2]): match[0] for match in matches if match and match[1] == kind}
    return [found[index] for index in sorted(found)]


def read_rows(folder: Path, kind: Kind, part: Part = EVERY_ROW) -> dict[str, Tensor]:
    """The tensors that a checkpoint has in parts, of each the rows that `part` says.

    Raises:
        UserError: a file is damaged, or rows cannot be divided among so many.
    """
    found: dict[str, list[Tensor]] = {}
    names = row_files(folder, kind)
    for place, name in enumerate(names):
        try:
            with safe_open(folder / name, framework="pt") as file:
                for key in file.keys():  # noqa: SIM118  (it is not a dict)
                    cut = file.get_slice(key)
                    rows = cut.get_shape()[0]
                    wanted = _wanted(key, rows * len(names), part)
                    first, last = (min(max(bound - rows * place, 0), rows) for bound in (wanted.start, wanted.stop))
                    if last > first:
                        found.setdefault(key, []).append(cut[first:last])
        except (SafetensorError, OSError) as error:
            raise UserError(f"{folder / name} is missing or damaged: use another checkpoint") from error
    return {key: parts[0] if len(parts) == 1 else torch.cat(parts) for key, parts in found.items()}


def _wanted(name: str, rows: int, part: Part) -> range:
    if rows % part.ranks:
        raise UserError(
            f"the checkpoint's {name} has {rows} rows, which {part.ranks} ranks cannot share evenly: resume on a "
            "number of ranks that divides it"
        )
    each = rows // part.ranks
    return range(each * part.rank, each * (part.rank + 1))
