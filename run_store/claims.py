"""Checkpoints that a run cannot give up because another run stands on them."""

from __future__ import annotations

import os
from pathlib import Path

from run_store.layout import IDENTITY_FOLDER
from run_store.listing import find_runs
from run_store.retention import UNTOUCHED


def needed_by_runs(folder: str | os.PathLike[str]) -> set[Path]:
    """The checkpoints of the run in `folder` that another run, which has not come to its end, takes its first weights
    from: until it has saved something itself, it begins there again.

    Args:
        folder: ROOT/NAME/spec-XXXXXXXX_exec-XXXXXXXX/vN; of a folder that lies elsewhere no runs are known.
    """
    folder = Path(folder)
    if not IDENTITY_FOLDER.fullmatch(folder.parent.name):
        return set()
    here = folder.resolve()
    parents = [
        run.record.lineage.parent_checkpoint
        for run in find_runs(folder.parents[2]).runs
        if run.status in {*UNTOUCHED, "interrupted"} and run.record.lineage.parent_checkpoint is not None
    ]
    # named as the caller names them: the record may hold another spelling of the same path
    return {
        folder.joinpath(Path(parent).resolve().relative_to(here))
        for parent in parents
        if Path(parent).resolve().is_relative_to(here)
    }
