"""Arrays as files: written piece by piece, described by a manifest, and mapped."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from run_store import sha256_of, write_json

FORMAT = "fulgurite-triplets"
VERSION = 1
MANIFEST = "manifest.json"
Array = npt.NDArray[Any]


class Damage(NamedTuple):
    """What is wrong with a file."""

    file: Path
    fault: str


class GrowingArray:
    """A flat array that is written as it is made.

    Args:
        path: The file: values one behind the other, little-endian, and nothing else.
        dtype: Of the values.
    """

    def __init__(self, path: Path, dtype: str) -> None:
        self.count = 0
        self._dtype = np.dtype(dtype).newbyteorder("<")
        self._file = open(path, "wb")  # noqa: SIM115  (it is written to for as long as examples are read)

    def append(self, values: Any) -> None:
        """Adds values to its end."""
        array = np.asarray(values, dtype=self._dtype)
        self.count += array.size
        self._file.write(array.tobytes())

    def close(self) -> None:
        self._file.close()


def write_array(path: Path, values: Any, dtype: str) -> None:
    """Writes a flat array at once."""
    array = GrowingArray(path, dtype)
    array.append(values)
    array.close()


def write_manifest(folder: Path, dtypes: Mapping[str, str], facts: Mapping[str, Any]) -> None:
    """Says what is in a folder of arrays, and what else is known of them.

    Args:
        folder: holds a file `NAME.bin` for every name in `dtypes`.
        dtypes: of the values of each.
        facts: plain JSON values.
    """
    arrays = {
        name: {
            "dtype": dtype,
            "bytes": path_of(folder, name).stat().st_size,
            "sha256": sha256_of(path_of(folder, name)),
        }
        for name, dtype in dtypes.items()
    }
    write_json(folder / MANIFEST, {"format": FORMAT, "version": VERSION, **facts, "arrays": arrays})


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of a folder; None where there is none that can be read."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    is_ours = isinstance(manifest, dict) and (manifest.get("format"), manifest.get("version")) == (FORMAT, VERSION)
    return manifest if is_ours else None


def damage_of(folder: Path) -> Damage | None:
    """The first file of a folder that is not as it was written; None where all are."""
    manifest = read_manifest(folder)
    if manifest is None:
        return Damage(folder / MANIFEST, "is missing or cannot be read")
    for name, stored in manifest["arrays"].items():
        path = path_of(folder, name)
        if not path.is_file():
            return Damage(path, "is missing")
        if path.stat().st_size != stored["bytes"]:
            return Damage(path, f"has {path.stat().st_size} bytes instead of {stored['bytes']}")
        if sha256_of(path) != stored["sha256"]:
            return Damage(path, "has other bytes than were written")
    return None


def map_array(folder: Path, name: str, stored: Mapping[str, Any]) -> Array:
    """An array [values] of a folder, read from the disk as it is used."""
    dtype = np.dtype(stored["dtype"]).newbyteorder("<")
    if stored["bytes"] == 0:  # nothing cannot be mapped
        return np.empty(0, dtype)
    return np.memmap(path_of(folder, name), dtype, mode="r")


def path_of(folder: Path, name: str) -> Path:
    return folder / f"{name}.bin"
