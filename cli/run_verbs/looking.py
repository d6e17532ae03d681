"""`runs list` and `runs show`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from jsonargparse.typing import NonNegativeInt, PositiveInt

from cli.run_verbs.settings import ROOT, printed_json
from cli.terminal import warn, width
from reports.text_columns import table
from run_store.checkpoints import in_words, list_checkpoints
from run_store.completion import completion_of
from run_store.layout import CHECKPOINTS_NAME
from run_store.listing import FoundRun
from run_store.locks import holder_of
from run_store.record import Status
from run_store.registry import ListedRun, find_run, list_runs
from run_store.run_index import Order, RunQuery


def list_(
    folder: str = ROOT,
    name: str | None = None,
    status: Status | None = None,
    model: str | None = None,
    dataset: str | None = None,
    tag: list[str] | None = None,
    order: Order = "newest",
    limit: NonNegativeInt = 20,
    page: PositiveInt = 1,
    json: bool = False,
) -> None:
    """Lists runs, from the index of all runs.

    Args:
        folder: The folder of all runs.
        name: Only runs of this name.
        status: Only runs in this status.
        model: Only runs that train this class.
        dataset: Only runs on this data.
        tag: Only runs that have all of these tags.
        order: Which come first; `changed` are those whose record was written last.
        limit: Runs on a page; 0 for all of them.
        page: Which page.
        json: Print JSON in place of the table.
    """
    offset = limit * (page - 1)
    query = RunQuery(name, model, dataset, status, tuple(tag or ()), order, limit or None, offset)
    found = list_runs(folder, query)
    warn(found.warning)
    if json:
        printed_json({"total": found.total, "runs": [summary(run) for run in found.runs], "damaged": found.damaged})
        return
    if found.runs:
        header = ["id", "status", "step", "created", "model", "data", "tags", "folder"]
        print("\n".join(table(header, [_row(run) for run in found.runs], width())))
    shown = f"{offset + 1}–{offset + len(found.runs)} of {found.total}" if found.runs else f"none of {found.total}"
    print(f"{shown} runs in {folder}")
    for sentence in found.damaged:
        print(f"damaged: {sentence}")


def show(run: str, folder: str = ROOT, json: bool = False) -> None:
    """Shows what is known of one run.

    Args:
        run: Its folder, id or name.
        folder: The folder of all runs.
        json: Print the whole record as JSON.
    """
    found = find_run(folder, run)
    if json:
        record = found.record
        content = {item.name: getattr(record, item.name) for item in dataclasses.fields(record)}
        printed_json({**content, "status": found.status})
        return
    for label, value in _known_of(found).items():
        if value not in (None, ""):
            print(f"{label:<14} {value}")


def summary(run: ListedRun) -> dict[str, Any]:
    """A run as JSON has it in a list."""
    content = dataclasses.asdict(run.summary)
    return {**content, "status": run.status, "folder": str(run.folder)}


def _row(run: ListedRun) -> list[str]:
    known = run.summary
    created = known.created[:16].replace("T", " ")
    tags = ", ".join(known.tags)
    return [known.id[:8], run.status, f"{known.step:,}", created, known.model, known.dataset, tags, str(run.folder)]


def _known_of(found: FoundRun) -> dict[str, Any]:
    record = found.record
    holder, completion = holder_of(found.folder), completion_of(found.folder)
    git, lineage, progress = record.git, record.lineage, record.progress
    checkpoints = list_checkpoints(Path(found.folder, CHECKPOINTS_NAME))
    return {
        "folder": found.folder,
        "id": record.id,
        "status": f"{found.status} ({holder})" if holder else found.status,
        "complete": "yes" if completion.complete else f"no: {completion.reason}",
        "progress": f"step {progress.step:,}, epoch {progress.epoch} of {progress.max_epochs or progress.max_steps}",
        "created": record.created,
        "ended": record.ended,
        "attempts": len(record.attempts),
        "tags": ", ".join(record.labels.tags),
        "note": record.labels.note,
        "spec": record.spec_fingerprint,
        "exec": record.exec_fingerprint,
        "code": f"{git.get('commit') or 'no commit'}{' with changes' if git.get('dirty') else ''}",
        "store": lineage.store and f"{lineage.store} ({(lineage.store_sha256 or '')[:12]})",
        "weights from": lineage.parent_checkpoint,
        "error": record.error and f"{record.error.kind}: {record.error.message}",
        **{name: f"{value:.6g}" for name, value in sorted(record.metrics.items())},
        "checkpoints": ", ".join(f"{found.path.name} ({in_words(found.bytes)})" for found in checkpoints),
    }
