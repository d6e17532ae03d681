"""Which code a run was made with."""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

GIT_TIMEOUT = 20.0
SOURCE_SUFFIXES = (".py", ".pyi", ".pyx", ".c", ".cc", ".cpp", ".cu", ".cuh", ".h", ".hpp")
_PROJECT = Path(__file__).resolve().parents[1]
_DISTRIBUTION = "fulgurite"
_LEFT_OUT = {"__pycache__", "node_modules", "site-packages", "build", "dist"}


@dataclass(frozen=True)
class CodeState:
    """The state of a checkout, or of a folder of sources where there is none.

    Attributes:
        commit: the full hash; None outside git and before the first commit.
        branch: None outside git and when HEAD is detached.
        dirty: whether a source file differs from the commit or is not in it. False outside git.
        diff_sha256: of the changed and untracked source files by name and content; None when nothing differs.
        files_sha256: of all source files, outside git alone.
    """

    commit: str | None = None
    branch: str | None = None
    dirty: bool = False
    diff_sha256: str | None = None
    files_sha256: str | None = None

    def identity(self) -> dict[str, Any]:
        """What belongs into a fingerprint: the branch's name does not."""
        return {name: value for name, value in asdict(self).items() if name not in ("branch", "dirty")}


def code_state(folder: str | os.PathLike[str] = _PROJECT) -> CodeState:
    """The state of the code in `folder`, the project's own by default. Never raises.

    Source files alone count: notes and configs may change while a run is going on (a config's settings are in the
    spec). Every folder of a checkout gives the same answer. Where git is missing, broken, slower than 20 s, or does not
    have the folder's sources in its care, the source files are hashed instead.
    """
    try:
        return _state_of_checkout(Path(folder))
    except (OSError, subprocess.SubprocessError, ValueError):
        return CodeState(files_sha256=_hash_of(Path(folder), _source_files(Path(folder))))


def _state_of_checkout(folder: Path) -> CodeState:
    top = Path(os.fsdecode(_git(folder, "rev-parse", "--show-toplevel").removesuffix(b"\n")))
    if not _names(_git(folder, "ls-files", "-z", "--", *(f"*{suffix}" for suffix in SOURCE_SUFFIXES))):
        raise ValueError("an ignored folder, as that of an environment inside a checkout")
    try:
        commit = _git(top, "rev-parse", "--verify", "--quiet", "HEAD").decode().strip()
        changed = _names(_git(top, "diff", "HEAD", "--name-only", "--no-renames", "--no-ext-diff", "-z"))
    except subprocess.CalledProcessError:  # nothing is committed yet
        commit, changed = None, _names(_git(top, "ls-files", "-z"))
    changed |= _names(_git(top, "ls-files", "--others", "--exclude-standard", "-z"))
    sources = [top / name for name in changed if name.endswith(SOURCE_SUFFIXES)]
    return CodeState(commit, _branch(top), bool(sources), _hash_of(top, sources) if sources else None)


def _branch(folder: Path) -> str | None:
    try:
        return _git(folder, "symbolic-ref", "--quiet", "--short", "HEAD").decode(errors="replace").strip()
    except subprocess.CalledProcessError:
        return None


def _git(folder: Path, *arguments: str) -> bytes:
    # A hook's GIT_DIR would lead to another checkout, and reading must not wait for, or leave, a lock.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    environment |= {"GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"}
    return subprocess.run(
        ["git", "-C", str(folder), *arguments],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=True,
        timeout=GIT_TIMEOUT,
    ).stdout


def _names(listed: bytes) -> set[str]:
    return {os.fsdecode(name) for name in listed.split(b"\0") if name}


def _hash_of(top: Path, paths: Iterable[Path]) -> str:
    """sha256 over names and contents. git's own diff would follow each person's settings for diffs."""
    digest = hashlib.sha256()
    for path in sorted(paths):
        digest.update(os.fsencode(path.relative_to(top).as_posix()) + b"\0")
        digest.update(hashlib.sha256(_content(path)).digest())
    return digest.hexdigest()


def _content(path: Path) -> bytes:
    try:
        return b"link to " + os.fsencode(os.readlink(path)) if path.is_symlink() else b"file " + path.read_bytes()
    except FileNotFoundError:
        return b"deleted"
    except OSError:
        return b"unreadable"


def _source_files(folder: Path) -> list[Path]:
    if (folder / "pyproject.toml").is_file() or folder != _PROJECT:
        return list(_walk(folder))
    # Installed: the folder holds every other package as well.
    try:
        files = metadata.files(_DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        return []
    paths = (folder / str(file) for file in files if str(file).endswith(SOURCE_SUFFIXES))
    return [path for path in paths if ".." not in path.parts]


def _walk(folder: Path) -> Iterator[Path]:
    for outer, inner, names in os.walk(folder):
        inner[:] = [name for name in inner if not _is_left_out(Path(outer, name))]
        yield from (Path(outer, name) for name in names if name.endswith(SOURCE_SUFFIXES))


def _is_left_out(folder: Path) -> bool:
    return folder.name in _LEFT_OUT or folder.name.startswith(".") or (folder / "pyvenv.cfg").exists()
