"""When a run counts as finished.

A run is complete when its record says so and every file that the record names under `outputs` is there as it was
written. `outputs` in metadata.json is the manifest: name (relative to the run's folder), bytes and sha256 of each.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from run_store.atomic import sha256_of
from run_store.errors import UserError
from run_store.record import OutputFile, read_record

# What YAML does not allow in a file.
_NOT_YAML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ufffe\uffff]")


@dataclass(frozen=True)
class Completion:
    """Whether a run is complete; if not, `reason` says why, as words that follow a comma."""

    complete: bool
    reason: str = ""


def describe_outputs(folder: str | os.PathLike[str], names: Iterable[str]) -> list[OutputFile]:
    """The manifest of files in a run's folder, sorted by name.

    Raises:
        UserError: a file is missing, empty, malformed or outside of the folder.
    """
    outputs = []
    for name in sorted(set(names)):
        path = Path(folder, name)
        if problem := _problem_of_name(name) or problem_of(path):
            raise UserError(f"the run {folder} cannot be completed, since {name} {problem}: train it again")
        outputs.append(OutputFile(name, path.stat().st_size, sha256_of(path)))
    return outputs


def completion_of(folder: str | os.PathLike[str], verify: bool = True) -> Completion:
    """Holds a run against its record. Nothing is loaded: files are read as bytes, and only the headers of weights.

    Args:
        folder: of the run.
        verify: compare the sha256 of each file, too, which reads it from end to end.
    """
    problem = next(problems_of(folder, verify), None)
    return Completion(True) if problem is None else Completion(False, problem)


def problems_of(folder: str | os.PathLike[str], verify: bool = True) -> Iterator[str]:
    """Everything that keeps a run from counting as finished, each as words that follow a comma; see `completion_of`."""
    try:
        record = read_record(folder)
    except UserError as error:
        yield str(error)
        return
    if record.status != "complete":
        yield f"its status is {record.status}"
    elif not record.outputs:
        yield "its record names no outputs"
    else:
        problems = (_problem_of_output(Path(folder), output, verify) for output in record.outputs)
        yield from (problem for problem in problems if problem)


def problem_of(path: str | os.PathLike[str]) -> str | None:
    """What is wrong with a file, as words that follow its name; None when it is whole.

    JSON, JSON lines, safetensors and YAML are looked into (safetensors by its header, YAML as text); any other file
    must just not be empty.
    """
    path = Path(path)
    try:
        if not path.is_file():
            return "is missing"
        if not path.stat().st_size:
            return "is empty"
        check = _CHECKS.get(path.suffix)
        return check(path) if check else None
    except OSError as error:
        return f"cannot be read ({error.strerror})"


def _problem_of_output(folder: Path, output: OutputFile, verify: bool) -> str | None:
    path = folder / output.name
    problem = _problem_of_name(output.name) or problem_of(path)
    if problem is None and path.stat().st_size != output.bytes:
        problem = f"has {path.stat().st_size} bytes instead of {output.bytes}"
    if problem is None and verify and sha256_of(path) != output.sha256:
        problem = "is not the file that was written (its sha256 differs)"
    return f"{output.name} {problem}" if problem else None


def _problem_of_name(name: str) -> str | None:
    path = PurePosixPath(name)
    return "is outside of the run's folder" if path.is_absolute() or ".." in path.parts or "\\" in name else None


def _problem_of_json(path: Path) -> str | None:
    return _unless_json(path.read_bytes())


def _problem_of_json_lines(path: Path) -> str | None:
    content = path.read_bytes()
    if not content.endswith(b"\n"):
        return "ends in the middle of a line"
    return next((problem for line in content.splitlines() if (problem := _unless_json(line))), None)


def _unless_json(text: bytes) -> str | None:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return "is not JSON"
    return None


def _problem_of_yaml(path: Path) -> str | None:
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return "is not text"
    if _NOT_YAML.search(text):
        return "is not text"
    return None if text.strip() else "is empty"


def _problem_of_safetensors(path: Path) -> str | None:
    """Its header, and that the tensors which the header speaks of fill the rest of the file exactly."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > size - 8:
            return "is cut off"
        header = file.read(length)
    try:
        tensors = {name: entry for name, entry in json.loads(header).items() if name != "__metadata__"}
        end = max((int(entry["data_offsets"][1]) for entry in tensors.values()), default=0)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError):
        return "has a damaged header"
    return None if 8 + length + end == size else "is cut off"


_CHECKS: dict[str, Callable[[Path], str | None]] = {
    ".json": _problem_of_json,
    ".jsonl": _problem_of_json_lines,
    ".safetensors": _problem_of_safetensors,
    ".yaml": _problem_of_yaml,
    ".yml": _problem_of_yaml,
}
