"""What an activation store looks like on disk.

A store is a folder that holds `manifest.json`, which names the store's other files, each with its size and sha256:

    shard-00000.<hook point>.safetensors   "activations" [rows, d], one file a hook point
    provenance-00000.safetensors           "tokens", "documents", "positions" [rows], int32
    document_names.json                    the names of the documents, by document number

The manifest is written last, so a folder without one is not a store, whatever else it holds.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import quote

import torch

from run_store import UserError, write_json

FORMAT = "fulgurite-activations"
VERSION = 1
MANIFEST_NAME = "manifest.json"
DOCUMENTS_NAME = "document_names.json"
ACTIVATIONS_KEY = "activations"
PROVENANCE_KEYS = ("tokens", "documents", "positions")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class StoredFile:
    """A file beside the manifest and what must be true of it."""

    name: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class HookPoint:
    """Width and dtype (a key of `DTYPES`) of one hook point's rows."""

    d: int
    dtype: str


@dataclass(frozen=True)
class Shard:
    """Consecutive rows: one file a hook point, and where the rows come from."""

    rows: int
    activations: dict[str, StoredFile]
    provenance: StoredFile

    @property
    def files(self) -> list[StoredFile]:
        return [*self.activations.values(), self.provenance]


@dataclass(frozen=True)
class Manifest:
    """The content of `manifest.json`. `source` is what an extraction says of its model, text and filters, as JSON."""

    source: dict[str, Any]
    hook_points: dict[str, HookPoint]
    shards: tuple[Shard, ...]
    documents: StoredFile

    @property
    def rows(self) -> int:
        return sum(shard.rows for shard in self.shards)

    @property
    def files(self) -> list[StoredFile]:
        return [self.documents, *(file for shard in self.shards for file in shard.files)]


def activations_name(shard: int, hook_point: str) -> str:
    """File name of one hook point's rows in a shard; different hook points never share one."""
    return f"shard-{shard:05d}.{quote(hook_point, safe='')}.safetensors"


def provenance_name(shard: int) -> str:
    """File name of what says where a shard's rows come from."""
    return f"provenance-{shard:05d}.safetensors"


def is_store(folder: str | os.PathLike[str]) -> bool:
    """Whether `folder` holds a manifest, be it sound or not."""
    return (Path(folder) / MANIFEST_NAME).is_file()


def write_manifest(folder: str | os.PathLike[str], manifest: Manifest) -> None:
    """Makes a store of `folder`."""
    write_json(Path(folder) / MANIFEST_NAME, {"format": FORMAT, "version": VERSION, **asdict(manifest)})


def read_manifest(folder: str | os.PathLike[str]) -> Manifest:
    """The store's manifest, validated; the files that it names are not looked at.

    Raises:
        UserError: there is no manifest, it is malformed, or it was written by another version of the format.
    """
    path = Path(folder) / MANIFEST_NAME
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{folder} is no activation store, since it has no {MANIFEST_NAME}: check the path") from None
    except ValueError as error:
        _refuse(path, f"not JSON: {error}")
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        _refuse(path, f'"format" is not "{FORMAT}"')
    if content.get("version") != VERSION:
        raise UserError(
            f"{path} is of format version {content.get('version')!r} and this release reads version {VERSION}: "
            "extract the store again"
        )
    try:
        return _parse(content)
    except KeyError as error:
        _refuse(path, f"{error} is missing")
    except ValueError as error:
        _refuse(path, str(error))


def _refuse(path: Path, problem: str) -> NoReturn:
    raise UserError(f"{path} is damaged ({problem}): put the original back or extract the store again")


def _parse(content: dict[str, Any]) -> Manifest:
    hook_points = {name: _hook_point(entry) for name, entry in _typed(content["hook_points"], dict).items()}
    shards = tuple(_shard(entry, hook_points) for entry in _typed(content["shards"], list))
    if not hook_points or not shards:
        raise ValueError("it has no hook points or no shards")
    return Manifest(_typed(content["source"], dict), hook_points, shards, _file(content["documents"]))


def _hook_point(entry: Any) -> HookPoint:
    hook_point = HookPoint(_count(_typed(entry, dict)["d"]), _typed(entry["dtype"], str))
    if hook_point.dtype not in DTYPES:
        raise ValueError(f"dtype {hook_point.dtype!r} is none of {', '.join(DTYPES)}")
    return hook_point


def _shard(entry: Any, hook_points: dict[str, HookPoint]) -> Shard:
    activations = {name: _file(file) for name, file in _typed(_typed(entry, dict)["activations"], dict).items()}
    if activations.keys() != hook_points.keys():
        raise ValueError("a shard's hook points are not the store's")
    return Shard(_count(entry["rows"]), activations, _file(entry["provenance"]))


def _file(entry: Any) -> StoredFile:
    file = StoredFile(_typed(_typed(entry, dict)["name"], str), _count(entry["bytes"]), _typed(entry["sha256"], str))
    if Path(file.name).name != file.name:
        raise ValueError(f"{file.name!r} is not a file beside it")
    return file


def _count(value: Any) -> int:
    # JSON's true would pass for the number 1
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{value!r} is no positive number")
    return value


def _typed(value: Any, kind: type) -> Any:
    if not isinstance(value, kind):
        raise ValueError(f"{value!r} stands where a JSON {kind.__name__} should")
    return value
