"""`python main.py runs`: light verbs around runs. A new one is a function here and its name in VERBS."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Literal

from jsonargparse.typing import NonNegativeInt, PositiveInt

from cli.light_verbs import carry_out_one_of
from run_store import UserError
from run_store.checkpoints import in_words, list_checkpoints
from run_store.cleaning import RunRules, plan_cleaning
from run_store.completion import completion_of
from run_store.layout import CHECKPOINTS_NAME
from run_store.listing import FoundRun, delete_run, find_runs, resolve_run
from run_store.locks import holder_of, is_held
from run_store.pausing import request_pause, withdraw_pause
from run_store.predictions import delete_predictions_of
from run_store.record import Status

ROOT = "runs"
_POLL = 0.1


def list_(
    folder: str = ROOT,
    name: str | None = None,
    status: Status | None = None,
    model: str | None = None,
    dataset: str | None = None,
    limit: NonNegativeInt = 20,
    page: PositiveInt = 1,
    format: Literal["table", "json"] = "table",
) -> None:
    """Lists runs, newest first.

    Args:
        folder: The folder of all runs.
        name: Only runs of this name.
        status: Only runs in this status.
        model: Only runs that train this class.
        dataset: Only runs on this data.
        limit: Runs on a page; 0 for all of them.
        page: Which page.
        format: A table to look at, or one JSON object.
    """
    offset = limit * (page - 1)
    found = find_runs(
        folder, name=name, status=status, model=model, dataset=dataset, limit=limit or None, offset=offset
    )
    if format == "json":
        print(json.dumps({"total": found.total, "runs": [_summary(run) for run in found.runs]}, indent=1))
        return
    for run in found.runs:
        progress = run.record.progress
        print(f"{run.record.id[:8]}  {run.status:<12} step {progress.step:<8,} {run.record.model:<8} {run.folder}")
    shown = f"{offset + 1}–{offset + len(found.runs)} of {found.total}" if found.runs else f"none of {found.total}"
    print(f"{shown} runs in {folder}")
    for sentence in found.damaged:
        print(f"damaged: {sentence}")


def show(run: str, folder: str = ROOT, format: Literal["text", "json"] = "text") -> None:
    """Shows what is known of one run.

    Args:
        run: Its folder, id or name.
        folder: The folder of all runs.
        format: Text to read, or the whole record as JSON.
    """
    found = resolve_run(folder, run)
    record = found.record
    if format == "json":
        content = {item.name: getattr(record, item.name) for item in fields(record)}
        print(json.dumps(content, indent=1, default=_plain))
        return
    holder, completion = holder_of(found.folder), completion_of(found.folder)
    git, lineage, progress = record.git, record.lineage, record.progress
    rows = {
        "folder": found.folder,
        "id": record.id,
        "status": f"{found.status} ({holder})" if holder else found.status,
        "complete": "yes" if completion.complete else f"no: {completion.reason}",
        "progress": f"step {progress.step:,}, epoch {progress.epoch} of {progress.max_epochs or progress.max_steps}",
        "created": record.created,
        "ended": record.ended,
        "attempts": len(record.attempts),
        "spec": record.spec_fingerprint,
        "exec": record.exec_fingerprint,
        "code": f"{git.get('commit') or 'no commit'}{' with changes' if git.get('dirty') else ''}",
        "store": lineage.store and f"{lineage.store} ({(lineage.store_sha256 or '')[:12]})",
        "weights from": lineage.parent_checkpoint,
        "error": record.error and f"{record.error.kind}: {record.error.message}",
        **{name: f"{value:.6g}" for name, value in sorted(record.metrics.items())},
    }
    rows["checkpoints"] = ", ".join(
        f"{checkpoint.path.name} ({in_words(checkpoint.bytes)})"
        for checkpoint in list_checkpoints(found.folder / CHECKPOINTS_NAME)
    )
    for label, value in rows.items():
        if value not in (None, ""):
            print(f"{label:<14} {value}")


def pause(run: str, folder: str = ROOT, wait: NonNegativeInt = 600) -> None:
    """Asks a running run to save and stop.

    Args:
        run: Its folder, id or name.
        folder: The folder of all runs.
        wait: Seconds to wait until it has stopped; 0 only asks.
    """
    found = resolve_run(folder, run)
    if not is_held(found.folder):
        raise UserError(f"no process is working on the run {found.folder}, which is {found.status}: nothing to pause")
    request_pause(found.folder)
    end = time.monotonic() + wait
    while is_held(found.folder) and time.monotonic() < end:
        time.sleep(_POLL)
    if is_held(found.folder):
        print(f"asked {found.folder} to pause; it stops after its step")
        return
    withdraw_pause(found.folder)  # it may have come to its end before it looked
    print(f"{found.folder} is {resolve_run(folder, found.folder).status}")


def resume(run: str, folder: str = ROOT) -> int:
    """Goes on with a run, with the settings of its last attempt.

    Args:
        run: Its folder, id or name.
        folder: The folder of all runs.
    """
    found = resolve_run(folder, run)
    configs = sorted(found.folder.glob("config.*.yaml"), key=lambda path: int(path.suffixes[0][1:]))
    if not configs:
        raise UserError(
            f"the run {found.folder} has no config.1.yaml: resume it with the config that it was begun with"
        )
    # imported here: the other verbs must not pay for torch
    from cli.lightning_cli import run as fit

    return fit(["fit", "--config", str(configs[-1]), "--resume", str(found.folder)])


def delete(run: str, folder: str = ROOT) -> None:
    """Deletes a run with its folder and its predictions; one that is running, pending or paused is refused.

    Args:
        run: Its folder, id or name.
        folder: The folder of all runs.
    """
    found = resolve_run(folder, run)
    print(f"deleted {found.folder}{_deleted(found)}")


def clean(
    folder: str = ROOT,
    name: str | None = None,
    keep_last: PositiveInt = 1,
    minimum_age_days: NonNegativeInt = 0,
    statuses: list[Status] = ["failed", "interrupted"],  # noqa: B006  (jsonargparse copies it)
    delete: bool = False,
) -> None:
    """Deletes runs that nobody needs any more: by default only tells which.

    The newest ones of each identity stay, and so does every run that is running, pending or paused, or whose weights an
    unfinished run began with.

    Args:
        folder: The folder of all runs.
        name: Only runs of this name.
        keep_last: How many runs of each identity stay whatever their status, the newest.
        minimum_age_days: Younger runs stay.
        statuses: Only runs in one of these go.
        delete: true deletes; false tells what would go.
    """
    plan = plan_cleaning(find_runs(folder, name=name).runs, RunRules(keep_last, minimum_age_days, tuple(statuses)))
    for run in plan:
        more = _deleted(run) if delete is True else ""
        print(f"{'deleted' if delete is True else 'would delete'} {run.folder} ({run.status}){more}")
    if not plan:
        print("nothing to clean")
    elif delete is not True:
        print("nothing is deleted without --delete true")


VERBS: dict[str, Callable[..., int | None]] = {
    "list": list_,
    "show": show,
    "pause": pause,
    "resume": resume,
    "delete": delete,
    "clean": clean,
}


def run(arguments: Sequence[str]) -> int:
    """Carries out one verb; `arguments` start with `runs`.

    Returns:
        The exit code.

    Raises:
        UserError: a verb or setting is unknown or has an impossible value, or the verb cannot do its work.
    """
    return carry_out_one_of(VERBS, "runs", arguments[1:])


def _deleted(run: FoundRun) -> str:
    """Deletes the run, and says what has become of its predictions."""
    delete_run(run.folder)
    try:
        count = delete_predictions_of(run.record)
    except UserError as error:  # the run is gone all the same
        return f"; its predictions stay, since {error}"
    return f" and its {count} predictions" if count else ""


def _summary(run: FoundRun) -> dict[str, object]:
    record = run.record
    return {
        "id": record.id,
        "name": record.name,
        "status": run.status,
        "folder": str(run.folder),
        "model": record.model,
        "dataset": record.dataset,
        "created": record.created,
        "step": record.progress.step,
        "metrics": {name: value if value - value == 0 else None for name, value in record.metrics.items()},
    }


def _plain(value: object) -> object:
    return str(value) if isinstance(value, Path) else asdict(value)  # type: ignore[call-overload]
