"""Where a run lies and what its files are called.

ROOT/NAME/spec-XXXXXXXX_exec-XXXXXXXX/v1/    one run: a variant of what it trains and how
    metadata.json    the record of the run
    labels.json      tags and a note that a person gave it
    config.N.yaml    the settings of its attempt N
    events.jsonl     its history
    run.lock         held while a process works on it
    checkpoints/     see run_store/checkpoints.py
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from run_store.errors import UserError
from run_store.paths import normalised

METADATA_NAME = "metadata.json"
LABELS_NAME = "labels.json"
EVENTS_NAME = "events.jsonl"
LOCK_NAME = "run.lock"
CHECKPOINTS_NAME = "checkpoints"
IDENTITY_FOLDER = re.compile(r"spec-[0-9a-f]{8}_exec-[0-9a-f]{8}")
VARIANT_FOLDER = re.compile(r"v([1-9][0-9]*)")

LONGEST_NAME = 100
_CONFIG = re.compile(r"config\.([1-9][0-9]*)\.yaml")
_SEPARATORS_AND_WILDCARDS = re.compile(r'[<>:"/\\|?*\x00-\x1f\x7f]')
# Windows takes these for devices, whatever follows the first dot.
_DEVICES = {"con", "prn", "aux", "nul", *(f"{port}{i}" for port in ("com", "lpt") for i in range(10))}


def check_name(name: str, setting: str = "run.name") -> str:
    """The name itself when it can be a folder's on every file system.

    Args:
        name: what a person calls the run.
        setting: where the name was set, for the message.

    Raises:
        UserError: it is empty, longer than 100 bytes, or no file system would take it everywhere.
    """
    if problem := _problem(name):
        raise UserError(f"{setting} {name!r} cannot name a folder ({problem}): choose letters, digits, -, _ and dots")
    return name


def identity_folder(root: str | os.PathLike[str], name: str, spec: str, execution: str) -> Path:
    """The folder of all variants of one identity.

    Args:
        root: the folder of all runs.
        name: what a person calls the run.
        spec: fingerprint of what is trained; its first eight digits are used.
        execution: fingerprint of how it is run, likewise.

    Raises:
        UserError: the name cannot be a folder's.
    """
    return Path(normalised(root)) / check_name(name) / f"spec-{spec[:8]}_exec-{execution[:8]}"


def variant_number(folder: str | os.PathLike[str]) -> int | None:
    """7 for `…/v7`; None for a folder that is no variant."""
    match = VARIANT_FOLDER.fullmatch(Path(folder).name)
    return int(match[1]) if match else None


def variant_folders(folder: str | os.PathLike[str]) -> list[Path]:
    """The variants in an identity's folder, lowest number first; none when the folder is missing."""
    try:
        inner = [path for path in Path(folder).iterdir() if variant_number(path) and path.is_dir()]
    except (FileNotFoundError, NotADirectoryError):
        return []
    return sorted(inner, key=lambda path: variant_number(path) or 0)


def newest_config(run: str | os.PathLike[str]) -> Path | None:
    """The settings of a run's newest attempt; None where there are none."""
    there = Path(run).glob("config.*.yaml")
    numbered = [(int(found[1]), path) for path in there if (found := _CONFIG.fullmatch(path.name))]
    return max(numbered)[1] if numbered else None


def _problem(name: str) -> str | None:
    try:
        length = len(name.encode())
    except UnicodeEncodeError:
        return "it is not valid Unicode"
    problems = {
        "it is empty": not name.strip(),
        f"it takes {length} bytes and at most {LONGEST_NAME} are allowed": length > LONGEST_NAME,
        "it has a separator, a wildcard or a control character": _SEPARATORS_AND_WILDCARDS.search(name),
        "it starts with a dot, a dash or a space": name[:1] in {".", "-", " "},
        "it ends with a dot or a space": name[-1:] in {".", " "},
        "Windows keeps this name for a device": name.partition(".")[0].strip().lower() in _DEVICES,
    }
    return next((problem for problem, found in problems.items() if found), None)
