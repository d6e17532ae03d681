"""Files that appear whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from run_store.errors import UserError

# What a killed writer leaves: the temporary file of `atomic_file`, or the one of its own that safetensors (≥ 0.8)
# writes beside its target.
_LEFTOVER = re.compile(r"(.+\.\d+\.partial|\.tmp[A-Za-z0-9]{6})")


@contextmanager
def atomic_file(target: str | os.PathLike[str]) -> Iterator[Path]:
    """Yields a path beside `target` to write to; on success the file is flushed to disk and renamed to `target`.

    The temporary file carries the process number, so that two writers never share one, and is removed when the block
    fails. The rename is flushed too: after a power cut the folder holds either the old file or the whole new one.

    Raises:
        UserError: the folder cannot be written to, or its disk is full, or `target` is a folder.
    """
    target = Path(target)
    if os.path.isdir(target):
        raise UserError(f"{target} is a folder: name a file in it")
    temporary = target.with_name(f"{target.name}.{os.getpid()}.partial")
    mode = _mode_of_a_new_file(temporary, target)
    try:
        yield temporary
        temporary.chmod(mode)
        flush_to_disk(temporary)
        os.replace(temporary, target)
        flush_to_disk(target.parent)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if is_disk_full(error):
            raise UserError(
                f"no space left on the disk of {target}: free some space there or choose another folder"
            ) from error
        raise


@contextmanager
def atomic_folder(target: str | os.PathLike[str]) -> Iterator[Path]:
    """Yields a new folder beside `target` to write to; on success it is flushed to disk and renamed to `target`, and it
    is removed when the block fails.

    Raises:
        UserError: there is something at `target` already, it cannot be written, or its disk is full.
    """
    target = Path(target)
    partial = target.with_name(f"{target.name}.{os.getpid()}.partial")
    try:
        if target.is_file() or (target.is_dir() and any(target.iterdir())):
            raise UserError(f"there is something in {target} already: choose another folder, or delete it first")
        shutil.rmtree(partial, ignore_errors=True)  # of a killed process that had the same number
        partial.mkdir(parents=True)
    except OSError as error:
        raise UserError(f"{target} cannot be written ({error.strerror}): choose another folder") from error
    try:
        yield partial
        mode = partial.stat().st_mode & 0o666  # by the umask; safetensors (≥ 0.8) would let the owner alone read
        for path in partial.rglob("*"):
            if path.is_file():
                path.chmod(mode)
            flush_to_disk(path)
        flush_to_disk(partial)
        os.replace(partial, target)  # takes the place of an empty folder, and of no other
        flush_to_disk(target.parent)
    except BaseException as error:
        shutil.rmtree(partial, ignore_errors=True)
        if is_disk_full(error):
            raise UserError(
                f"no space left on the disk of {target}: free some space there or choose another folder"
            ) from error
        raise


def write_json(target: str | os.PathLike[str], content: Any) -> None:
    """Writes `content` as indented JSON, atomically."""
    with atomic_file(target) as temporary:
        temporary.write_text(json_text(content), encoding="utf-8")


def json_text(content: Any) -> str:
    """How JSON is written everywhere: indented, to be read by people."""
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def flush_to_disk(path: str | os.PathLike[str]) -> None:
    """fsync of a file or of a folder's entries."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sweep_temporaries(folder: str | os.PathLike[str]) -> list[Path]:
    """Removes what killed writers of `atomic_file` left anywhere below `folder`, and returns the paths.

    Call it only where no writer can be at work.
    """
    leftovers = sorted(path for path in Path(folder).rglob("*") if _LEFTOVER.fullmatch(path.name) and path.is_file())
    for leftover in leftovers:
        leftover.unlink(missing_ok=True)
    return leftovers


def sha256_of(path: str | os.PathLike[str]) -> str:
    """Hexadecimal sha256 of a file's bytes."""
    with open(path, "rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _mode_of_a_new_file(temporary: Path, target: Path) -> int:
    """The permissions that the umask gives a new file. safetensors (≥ 0.8) would let the owner alone read its files."""
    try:
        temporary.touch()
        mode = temporary.stat().st_mode
        temporary.unlink()
    except OSError as error:
        raise UserError(f"{target} cannot be written ({error.strerror}): choose another folder") from error
    return mode & 0o777


def is_disk_full(error: BaseException | None) -> bool:
    """Whether an error means ENOSPC or EDQUOT, or hides one that does.

    safetensors says so in text alone; torch raises what it meets when it closes the unfinished file.
    """
    if error is None:
        return False
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    return "No space left on device" in str(error) or is_disk_full(error.__cause__ or error.__context__)
