"""A run to be backed up, and a file system that fails when it is told to."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, ClassVar

import fsspec
from fsspec.implementations.memory import MemoryFileSystem

from run_store.checkpoints import checkpoint_path, damage, new_checkpoint
from run_store.fingerprints import Execution, Spec
from run_store.record import RunRecord, create_record

PLACE = Path("sae", "spec-01234567_exec-89abcdef", "v1")


class Unreliable(MemoryFileSystem):
    """Files in memory, behind a line that may be cut."""

    protocol = "unreliable"
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]
    writes_left: ClassVar[float] = float("inf")
    writes: ClassVar[int] = 0

    @classmethod
    def _count(cls) -> None:
        if cls.writes_left < 1:
            raise ConnectionError("the line is cut")
        cls.writes_left -= 1
        cls.writes += 1

    def pipe_file(self, *args: Any, **settings: Any) -> None:
        self._count()
        super().pipe_file(*args, **settings)

    def put_file(self, local: str, remote: str, **settings: Any) -> None:
        """Half of the file comes through when the line is cut."""
        try:
            self._count()
        except ConnectionError:
            content = Path(local).read_bytes()
            super().pipe_file(remote, content[: len(content) // 2])
            raise
        super().put_file(local, remote, **settings)

    def cp_file(self, *args: Any, **settings: Any) -> None:
        self._count()
        super().cp_file(*args, **settings)

    def rm_file(self, path: str) -> None:
        self._count()
        super().rm_file(path)


fsspec.register_implementation("unreliable", Unreliable, clobber=True)


def new_run(root: Path) -> RunRecord:
    """A pending run in root/PLACE."""
    folder = root / PLACE
    folder.mkdir(parents=True)
    return create_record(folder, "sae", Spec({}, {}, {}, 0), Execution({}, "32-true", {}, {}))


def save(run: Path, step: int, content: bytes = b"state", **metrics: float) -> Path:
    """A checkpoint of two files."""
    path = checkpoint_path(run / "checkpoints", step)
    with new_checkpoint(path, step, 0, metrics) as partial:
        (partial / "state.ckpt").write_bytes(content)
        (partial / "model.safetensors").write_bytes(content * 3)
    return path


def fetched(url: str, folder: Path) -> Path:
    """What a person copies back."""
    shutil.rmtree(folder, ignore_errors=True)
    files, place = fsspec.url_to_fs(url)
    files.get(f"{place}/", f"{folder}/", recursive=True)
    return folder


def whole_ones(checkpoints: Path) -> set[str]:
    """Those with a manifest, every one of which must be sound."""
    found = {path.parent for path in checkpoints.glob("step-*/manifest.json")}
    assert {path: damage(path) for path in found} == dict.fromkeys(found)
    return {path.name for path in found}
