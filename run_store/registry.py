"""All runs below one folder, by the hundred: what `listing` finds by walking over the folders, read from the index.

What is guaranteed: a run whose record is written or deleted by this code is found as it is, also after a kill at any
moment. Of what others do to the folders (copying, moving, removing), these are noticed at once: an identity's folder
that came or went, and any change of a run that is on the page. A variant that was put beside others, or taken away, and
is on no page that was looked at, is noticed by `reindex`, which is always exact.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

from run_store.errors import UserError
from run_store.layout import METADATA_NAME
from run_store.listing import FoundRun, resolve_run, status_now, the_one
from run_store.locks import is_held
from run_store.record import LIVE, Status, read_record, summary_of
from run_store.run_index import IndexedRun, RunIndex, RunQuery, RunSummary, answered

# Runs that change while they are looked up are looked up again, but not for ever.
_ROUNDS = 3
ALL_RUNS = RunQuery()


@dataclass(frozen=True)
class ListedRun:
    """A run as the index knows it, and its status as of now."""

    folder: Path
    status: Status
    summary: RunSummary


@dataclass(frozen=True)
class RunPage:
    """A page of runs.

    Attributes:
        runs: in the order that was asked for.
        total: how many there are on all pages.
        damaged: one sentence for each run whose record cannot be read, whatever was asked for.
        warning: why every run folder had to be read; "" when the index answered.
    """

    runs: list[ListedRun]
    total: int
    damaged: list[str]
    warning: str = ""


def list_runs(root: str | os.PathLike[str], query: RunQuery = ALL_RUNS) -> RunPage:
    """The runs below `root` that `query` asks for, from the index. Only the locks of those are looked at that are on
    the page, or whose status is asked for, and that their record calls live.
    """
    return _page_of(root, query, afresh=False)


def find_run(root: str | os.PathLike[str], wanted: str | os.PathLike[str]) -> FoundRun:
    """`resolve_run`, by way of the index.

    Raises:
        UserError: no run or more than one is meant, or its record is damaged.
    """
    if any((folder / METADATA_NAME).exists() for folder in (Path(wanted), Path(root, wanted))):
        return resolve_run(root, wanted)
    text = Path(wanted).as_posix()
    meant = answered(root, summary_of, lambda index: _current(index, lambda: index.meant_by(text))) if text else []
    record = read_record(the_one([Path(root, run.place) for run in meant], text, root))
    return FoundRun(record, status_now(record))


def get_listed(root: str | os.PathLike[str], run_id: str) -> ListedRun | None:
    """The run with this id; None when there is none."""
    meant = answered(root, summary_of, lambda index: _current(index, lambda: index.meant_by(run_id)))
    return next((_listed(Path(root), run) for run in meant if run.summary.id == run_id), None)


def reindex(root: str | os.PathLike[str]) -> RunPage:
    """Makes the index again from every run folder, and returns all runs."""
    return _page_of(root, ALL_RUNS, afresh=True)


def stamps(root: str | os.PathLike[str]) -> dict[Path, str]:
    """For each run folder what changes whenever its record does, as far as the index was told."""
    found = answered(root, summary_of, RunIndex.stamps)
    return {Path(root, place): stamp for place, stamp in found.items()}


def _page_of(root: str | os.PathLike[str], query: RunQuery, afresh: bool) -> RunPage:
    warnings: list[str] = []
    page = answered(root, summary_of, lambda index: _page(index, query), warnings.append, afresh=afresh)
    return replace(page, warning="; ".join(warnings))


def _page(index: RunIndex, query: RunQuery) -> RunPage:
    lost: list[str] = []

    def rows() -> list[IndexedRun]:
        nonlocal lost
        lost = _lost(index, query)
        return index.page(query, lost)

    runs = [_listed(index.root, run) for run in _current(index, rows)]
    return RunPage(runs, index.count(query, lost), _damages(index))


def _current(index: RunIndex, rows: Callable[[], list[IndexedRun]]) -> list[IndexedRun]:
    """The rows once they and the damaged ones are as the folders are."""
    for _ in range(_ROUNDS):
        found = rows()
        if not index.refresh_outdated([*found, *index.damaged()]):
            break
    return found


def _lost(index: RunIndex, query: RunQuery) -> list[str]:
    """Places of runs that a killed process left as live, as far as the status that is asked for depends on it."""
    if query.status not in {*LIVE, "interrupted"}:
        return []
    return [place for place in index.recorded_as(sorted(LIVE), query) if not is_held(index.root / place)]


def _listed(root: Path, run: IndexedRun) -> ListedRun:
    folder, status = root / run.place, cast(Status, run.summary.status)
    return ListedRun(folder, "interrupted" if status in LIVE and not is_held(folder) else status, run.summary)


def _damages(index: RunIndex) -> list[str]:
    return list(_sentences(index.root / run.place for run in index.damaged()))


def _sentences(folders: Iterable[Path]) -> Iterable[str]:
    for folder in folders:
        try:
            read_record(folder)
        except UserError as error:
            yield str(error)
