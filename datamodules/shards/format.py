"""What an activation store looks like on disk.

A store is a folder that holds `manifest.json`, which names the store's other files, each with its size and sha256:

    shard-00000.<hook point>.safetensors   "activations" [rows, d], one file a hook point; see `encodings`
    provenance-00000.safetensors           "tokens", "documents", "positions" [rows], int32
    document_names.json                    the names of the documents, by document number

Where several processes wrote a store, the files of each carry its number: shard-2of4-00000…, provenance-2of4-00000…

The manifest is written last, so a folder without one is not a store, whatever else it holds.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Collection
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import quote

from datamodules.shards.encodings import ENCODINGS, SCALE_BLOCK, Encoding
from datamodules.shards.files import Place, in_words, read_file
from remote_files import Retries, is_url
from run_store import UserError, write_json

FORMAT = "fulgurite-activations"
VERSION = 1
MANIFEST_NAME = "manifest.json"
DOCUMENTS_NAME = "document_names.json"
PROVENANCE_KEYS = ("tokens", "documents", "positions")

# What a killed writer leaves: whole files without a manifest, and half-written ones.
WRITTEN = re.compile(
    r"((shard-(\d+of\d+-)?\d{5,}\..+|provenance-(\d+of\d+-)?\d{5,})\.safetensors|(document_names|manifest)\.json)"
    r"(\.\d+\.partial)?|unfinished-\d+of\d+\.json\.\d+\.partial"
)


@dataclass(frozen=True)
class StoredFile:
    """A file beside the manifest and what must be true of it."""

    name: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class HookPoint:
    """Width and dtype (a key of `ENCODINGS`) of one hook point's rows."""

    d: int
    dtype: str

    @property
    def encoding(self) -> Encoding:
        return ENCODINGS[self.dtype]

    @property
    def row_bytes(self) -> int:
        """What a row takes on disk."""
        return self.encoding.row_bytes(self.d)


@dataclass(frozen=True)
class Shard:
    """Consecutive rows: one file a hook point, and where the rows come from."""

    rows: int
    activations: dict[str, StoredFile]
    provenance: StoredFile

    @property
    def files(self) -> list[StoredFile]:
        return [*self.activations.values(), self.provenance]

    def file(self, source: str) -> StoredFile:
        """The file of a hook point, or, for the empty name, that of the provenance."""
        return self.activations[source] if source else self.provenance


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


def activations_name(shard: int, hook_point: str, part: str = "") -> str:
    """File name of one hook point's rows in a shard; different hook points never share one.

    Args:
        shard: its number, counted by the process that writes it.
        hook_point: a module path.
        part: "2of4-" for the second of four processes.
    """
    return f"shard-{part}{shard:05d}.{quote(hook_point, safe='')}.safetensors"


def provenance_name(shard: int, part: str = "") -> str:
    """File name of what says where a shard's rows come from; see `activations_name`."""
    return f"provenance-{part}{shard:05d}.safetensors"


def is_store(place: Place) -> bool:
    """Whether there is a manifest, be it sound or not.

    Raises:
        UserError: the place is a URL that cannot be reached.
    """
    if is_url(place):
        return read_file(place, MANIFEST_NAME) is not None
    return Path(place, MANIFEST_NAME).is_file()


def manifest_sha256(place: Place) -> str:
    """What stands for a store and all its files.

    Raises:
        UserError: there is none, or its URL cannot be reached.
    """
    return hashlib.sha256(manifest_text(place)).hexdigest()


def manifest_text(place: Place, retries: Retries | None = None) -> bytes:
    """The content of `manifest.json`.

    Raises:
        UserError: there is none, or its URL cannot be reached.
    """
    content = read_file(place, MANIFEST_NAME, retries)
    if content is None:
        raise UserError(f"{in_words(place)} is no activation store, since it has no {MANIFEST_NAME}: check the path")
    return content


def manifest_json(manifest: Manifest) -> dict[str, Any]:
    """What `manifest.json` says."""
    content = {"format": FORMAT, "version": VERSION, **asdict(manifest)}
    for entry in content["hook_points"].values():
        if entry["dtype"] == "int8":
            entry["scale_block"] = SCALE_BLOCK  # so that the file says all it takes to read a store
    return content


def write_manifest(folder: str | os.PathLike[str], manifest: Manifest) -> None:
    """Makes a store of `folder`."""
    write_json(Path(folder) / MANIFEST_NAME, manifest_json(manifest))


def read_manifest(place: Place) -> Manifest:
    """The store's manifest, validated; the files that it names are not looked at.

    Raises:
        UserError: there is no manifest, it is malformed, it was written by another version of the format, or its URL
            cannot be reached.
    """
    return parse_manifest(manifest_text(place), place)


def parse_manifest(text: bytes, place: Place) -> Manifest:
    """A manifest from its text; see `read_manifest`.

    Args:
        text: the content of the file.
        place: of the store, for messages.
    """
    path = f"{in_words(place).rstrip('/')}/{MANIFEST_NAME}"
    try:
        content = json.loads(text)
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


def _refuse(path: str, problem: str) -> NoReturn:
    raise UserError(f"{path} is damaged ({problem}): put the original back or extract the store again")


def _parse(content: dict[str, Any]) -> Manifest:
    hook_points = {name: _hook_point(entry) for name, entry in typed(content["hook_points"], dict).items()}
    shards = tuple(parse_shard(entry, hook_points) for entry in typed(content["shards"], list))
    if not hook_points or not shards:
        raise ValueError("it has no hook points or no shards")
    return Manifest(typed(content["source"], dict), hook_points, shards, parse_file(content["documents"]))


def _hook_point(entry: Any) -> HookPoint:
    hook_point = HookPoint(count(typed(entry, dict)["d"]), typed(entry["dtype"], str))
    if hook_point.dtype not in ENCODINGS:
        raise ValueError(f"dtype {hook_point.dtype!r} is none of {', '.join(ENCODINGS)}")
    if entry.get("scale_block", SCALE_BLOCK) != SCALE_BLOCK:
        raise ValueError(f"scale_block {entry['scale_block']!r} is not {SCALE_BLOCK}")
    return hook_point


def parse_shard(entry: Any, hook_points: Collection[str]) -> Shard:
    """A shard from its JSON.

    Raises:
        KeyError, ValueError: it is malformed, or not of these hook points.
    """
    activations = {name: parse_file(file) for name, file in typed(typed(entry, dict)["activations"], dict).items()}
    if activations.keys() != set(hook_points):
        raise ValueError("a shard's hook points are not the store's")
    return Shard(count(entry["rows"]), activations, parse_file(entry["provenance"]))


def parse_file(entry: Any) -> StoredFile:
    """A file's name, size and sha256 from their JSON.

    Raises:
        KeyError, ValueError: they are malformed.
    """
    file = StoredFile(typed(typed(entry, dict)["name"], str), count(entry["bytes"]), typed(entry["sha256"], str))
    if Path(file.name).name != file.name:
        raise ValueError(f"{file.name!r} is not a file beside it")
    return file


def count(value: Any, least: int = 1) -> int:
    """The value, if it is a whole number and not less than `least`.

    Raises:
        ValueError: it is not.
    """
    # JSON's true would pass for the number 1
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"{value!r} is no {'positive ' if least else ''}number")
    return value


def typed(value: Any, kind: type) -> Any:
    """The value, if it is one of `kind`.

    Raises:
        ValueError: it is not.
    """
    if not isinstance(value, kind):
        raise ValueError(f"{value!r} stands where a JSON {kind.__name__} should")
    return value
