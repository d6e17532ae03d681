"""Checkpoint folders: written whole, listed, verified, removed.

A checkpoint is a folder `step-00001200/` of data files and a `manifest.json` that names every file with its size and
sha256. It is written beside its final name, flushed and renamed, so a folder of that name is always whole; what a kill
leaves has a name that no reader takes for a checkpoint.
"""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from run_store.atomic import flush_to_disk, is_disk_full, sha256_of, sweep_temporaries, write_json
from run_store.errors import UserError

FORMAT = 1
MANIFEST = "manifest.json"
_CHECKPOINT = re.compile(r"step-(\d{8,})")
_LEFTOVER = re.compile(r"(.+)\.(\d+)\.(partial|replaced|trash)")


@dataclass(frozen=True)
class StoredFile:
    """Size in bytes and hexadecimal sha256 of one file."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class StoredCheckpoint:
    """What the manifest of one checkpoint says."""

    path: Path
    step: int
    epoch: int
    sequence: int
    """The number of the save among those of its folder: what is newest does not depend on a clock."""
    time: float
    """Seconds since 1970, by the clock of the machine that saved it."""
    metrics: Mapping[str, float | None] = field(hash=False)
    """Finite values; None where a metric was measured and is not a number."""
    files: Mapping[str, StoredFile] = field(hash=False)
    bytes: int
    """Everything in the folder, the manifest too."""


@dataclass(frozen=True)
class Found:
    """The newest checkpoint that can be used, and what is damaged among the newer ones, newest first, with why."""

    checkpoint: StoredCheckpoint
    damaged: tuple[tuple[Path, str], ...] = ()

    def warning(self) -> str | None:
        """One sentence that names the damaged checkpoints and the one taken instead; None when the newest is whole."""
        if not self.damaged:
            return None
        damaged = "; ".join(f"{path} is damaged ({why})" for path, why in self.damaged)
        return f"{damaged}: going on from the one before, {self.checkpoint.path}"


def checkpoint_path(folder: str | os.PathLike[str], step: int) -> Path:
    """Where the checkpoint of an optimiser step stands."""
    return Path(folder) / f"step-{step:08d}"


@contextmanager
def new_checkpoint(
    target: str | os.PathLike[str],
    step: int,
    epoch: int,
    metrics: Mapping[str, float] | None = None,
    now: Callable[[], float] = time.time,
    hashed: Mapping[str, str] | None = None,
) -> Iterator[Path]:
    """Yields an empty folder beside `target` to write files to; on success it is sealed with a manifest, flushed to
    disk and renamed to `target`, in place of what stood there before. `hashed` has the sha256 of files that other
    processes have written there and flushed, by name; it is looked at on success.

    Raises:
        UserError: the folder cannot be written to, or its disk is full; what stood there before is untouched.
    """
    target = Path(target)
    partial = _beside(target, "partial")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(partial, ignore_errors=True)  # of a killed process that had the same number
        partial.mkdir()
    except OSError as error:
        raise UserError(f"{target} cannot be written ({error.strerror}): choose another folder") from error
    try:
        yield partial
        numbers = {"step": step, "epoch": epoch, "sequence": _next_sequence(target.parent), "time": now()}
        _seal(partial, numbers, metrics or {}, hashed or {})
        _put_in_place(partial, target)
    except BaseException as error:
        shutil.rmtree(partial, ignore_errors=True)
        if is_disk_full(error):
            raise UserError(
                f"no space left on the disk of {target}: free some space there or choose another folder"
            ) from error
        raise


def demand_space(target: str | os.PathLike[str], needed: int) -> None:
    """Looks at the disk before a save is begun.

    Raises:
        UserError: fewer than `needed` bytes are free there, with both numbers.
    """
    target = Path(target)
    existing = next(folder for folder in (target.parent, *target.parent.parents) if folder.exists())
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise UserError(
            f"the checkpoint {target} needs {in_words(needed)} and its disk has {in_words(free)} free: "
            "free some space there or choose another folder (older checkpoints are untouched)"
        )


def read_checkpoint(path: str | os.PathLike[str]) -> StoredCheckpoint:
    """Reads the manifest and looks that every file it names is there in full length; hashes are `damage`'s affair.

    Raises:
        UserError: there is no such checkpoint, or it is not whole, and why.
    """
    path = Path(path)
    if not path.is_dir():
        raise UserError(f"there is no checkpoint {path}")
    try:
        text = (path / MANIFEST).read_bytes()
        checkpoint = _parsed(path, json.loads(text), len(text))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is not a whole checkpoint: its {MANIFEST} is missing or damaged") from error
    for name, file in checkpoint.files.items():
        if not (path / name).is_file() or (path / name).stat().st_size != file.bytes:
            raise UserError(f"{path} is not a whole checkpoint: its {name} is missing or cut short")
    return checkpoint


def damage(path: str | os.PathLike[str], only: Collection[str] | None = None) -> str | None:
    """Why a checkpoint cannot be used, in a few words; None when every hash is right.

    Args:
        path: the checkpoint's folder.
        only: the files to look at, where the others are not going to be read.
    """
    try:
        checkpoint = read_checkpoint(path)
        for name, file in checkpoint.files.items():
            if (only is None or name in only) and sha256_of(checkpoint.path / name) != file.sha256:
                return f"{name} differs from what was saved"
    except UserError as error:
        return str(error).rpartition(": ")[2] or str(error)
    except OSError as error:
        return f"cannot be read, {error.strerror}"
    return None


def list_checkpoints(folder: str | os.PathLike[str]) -> list[StoredCheckpoint]:
    """The whole checkpoints of a folder, oldest first. Hashes are not looked at."""
    found = []
    for path in _folders(folder):
        try:
            found.append(read_checkpoint(path))
        except UserError:
            continue
    return sorted(found, key=lambda checkpoint: (checkpoint.sequence, checkpoint.step))


def newest_valid(folder: str | os.PathLike[str]) -> Found:
    """The newest checkpoint of a folder whose every hash is right.

    Raises:
        UserError: there is none; every damaged one is named.
    """
    whole = list_checkpoints(folder)
    listed = {checkpoint.path for checkpoint in whole}
    # one without a readable manifest has no number of its save: its step must do
    unreadable = [path for path in reversed(_folders(folder)) if path not in listed]
    damaged: list[tuple[Path, str]] = []
    for checkpoint in reversed(whole):
        why = damage(checkpoint.path)
        if why is None:
            newer = [path for path in unreadable if _step_of(path) > checkpoint.step]
            return Found(checkpoint, (*((path, damage(path) or "") for path in newer), *damaged))
        damaged.append((checkpoint.path, why))
    damaged = [*((path, damage(path) or "") for path in unreadable), *damaged]
    if not damaged:
        raise UserError(f"there is no checkpoint in {folder}: start afresh")
    reasons = "; ".join(f"{path.name}: {why}" for path, why in damaged)
    raise UserError(f"no checkpoint in {folder} can be used ({reasons}): start afresh or bring back a copy")


def add_metrics(path: str | os.PathLike[str], metrics: Mapping[str, float]) -> None:
    """Adds to a checkpoint's manifest what was measured on its weights after they were saved."""
    manifest = json.loads((Path(path) / MANIFEST).read_bytes())
    manifest["metrics"].update(_plain(metrics))
    write_json(Path(path) / MANIFEST, manifest)


def remove_checkpoint(path: str | os.PathLike[str]) -> None:
    """Removes a checkpoint as a whole: it loses its name first, so that a kill leaves nothing that looks like one."""
    path = Path(path)
    trash = _beside(path, "trash")
    shutil.rmtree(trash, ignore_errors=True)
    try:
        os.rename(path, trash)
    except FileNotFoundError:
        return
    flush_to_disk(path.parent)
    shutil.rmtree(trash)


def sweep_leftovers(folder: str | os.PathLike[str]) -> list[Path]:
    """Clears away what killed processes left in a folder of checkpoints, and returns the paths.

    A checkpoint that was moved aside for a newer one of the same step gets its name back when the newer one did not
    come. What belongs to another process that is alive on this machine is left alone; the run's lock is what keeps
    processes of other machines apart.
    """
    swept = []
    for path in sorted(Path(folder).glob("*")):
        match = _LEFTOVER.fullmatch(path.name)
        if match is None or not path.is_dir() or _is_another_living_process(int(match[2])):
            continue
        if match[3] == "replaced" and not path.with_name(match[1]).exists():
            os.rename(path, path.with_name(match[1]))
        else:
            shutil.rmtree(path, ignore_errors=True)
        swept.append(path)
    for checkpoint in _folders(folder):
        swept += sweep_temporaries(checkpoint)
    return swept


def in_words(size: int) -> str:
    """A number of bytes for a person: "1.25 GB"."""
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size >= factor:
            return f"{size / factor:.3g} {unit}" if size < 1000 * factor else f"{size / factor:,.0f} {unit}"
    return f"{size} bytes"


def _beside(target: Path, kind: str) -> Path:
    return target.with_name(f"{target.name}.{os.getpid()}.{kind}")


def _folders(folder: str | os.PathLike[str]) -> list[Path]:
    """Everything that has a checkpoint's name, by step."""
    return sorted((path for path in Path(folder).glob("step-*") if _CHECKPOINT.fullmatch(path.name)), key=_step_of)


def _step_of(path: Path) -> int:
    return int(path.name.removeprefix("step-"))


def _next_sequence(folder: Path) -> int:
    return 1 + max((checkpoint.sequence for checkpoint in list_checkpoints(folder)), default=0)


def _seal(partial: Path, numbers: Mapping[str, float], metrics: Mapping[str, float], hashed: Mapping[str, str]) -> None:
    """Writes the manifest last, over files that are on the disk already."""
    files = {}
    mode = partial.stat().st_mode & 0o666  # by the umask; safetensors (≥ 0.8) would let the owner alone read its files
    for path in sorted(partial.iterdir()):
        path.chmod(mode)
        flush_to_disk(path)
        files[path.name] = {"bytes": path.stat().st_size, "sha256": hashed.get(path.name) or sha256_of(path)}
    write_json(partial / MANIFEST, {"format": FORMAT, **numbers, "metrics": _plain(metrics), "files": files})


def _put_in_place(partial: Path, target: Path) -> None:
    """A folder cannot be renamed over another: the old one steps aside, and `sweep_leftovers` brings it back after a
    kill in between.
    """
    replaced = None
    if target.exists():
        replaced = _beside(target, "replaced")
        shutil.rmtree(replaced, ignore_errors=True)
        os.rename(target, replaced)
    try:
        os.rename(partial, target)
    except OSError:
        if replaced is not None:
            os.rename(replaced, target)
        raise
    flush_to_disk(target.parent)
    if replaced is not None:
        shutil.rmtree(replaced, ignore_errors=True)


def _parsed(path: Path, manifest: Any, size: int) -> StoredCheckpoint:
    if manifest["format"] != FORMAT:
        raise ValueError(f"format {manifest['format']}")
    files = {name: StoredFile(int(file["bytes"]), str(file["sha256"])) for name, file in manifest["files"].items()}
    if not files or any(Path(name).name != name for name in files):
        raise ValueError("the files of a checkpoint stand in its folder")
    return StoredCheckpoint(
        path,
        step=int(manifest["step"]),
        epoch=int(manifest["epoch"]),
        sequence=int(manifest["sequence"]),
        time=float(manifest["time"]),
        metrics=dict(manifest["metrics"]),
        files=files,
        bytes=size + sum(file.bytes for file in files.values()),
    )


def _plain(metrics: Mapping[str, float]) -> dict[str, float | None]:
    """JSON has no word for what is not a number."""
    return {name: float(value) if math.isfinite(value) else None for name, value in sorted(metrics.items())}


def _is_another_living_process(number: int) -> bool:
    if number == os.getpid():  # numbers come again; a process sweeps before it writes
        return False
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True
