"""Which runs come from which: pure rules over what was found."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from run_store.listing import FoundRun


def descendants(ancestor: FoundRun, runs: Iterable[FoundRun]) -> list[FoundRun]:
    """The runs whose first weights come from a run, from one of those, and so on; the nearest first."""
    rest = [run for run in runs if run.folder.resolve() != ancestor.folder.resolve()]
    found: list[FoundRun] = []
    generation = [ancestor]
    while generation:
        ids = {run.record.id for run in generation}
        folders = {run.folder.resolve() for run in generation}
        generation = [run for run in rest if _comes_from(run, ids, folders)]
        rest = [run for run in rest if run not in generation]
        found += generation
    return found


def _comes_from(run: FoundRun, ids: set[str], folders: set[Path]) -> bool:
    lineage = run.record.lineage
    if lineage.parent_run in ids:
        return True
    return lineage.parent_checkpoint is not None and Path(lineage.parent_checkpoint).resolve().parent.parent in folders
