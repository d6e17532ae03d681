"""The predictions of all runs below one folder: writing them, reading them, deleting them."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from run_store.errors import UserError
from run_store.predictions.connecting import connect
from run_store.predictions.records import EpochSummary, Prediction, RunEntry, store_path_of
from run_store.predictions.rows import COLUMNS, Row, to_prediction, to_row
from run_store.record import RunRecord
from run_store.sqlite_files import told, transaction

PATIENCE = 30.0

_RUN_COLUMNS = "run_id, name, folder, job_id, user_id, created_at"
# A run stays its owner's when somebody else resumes it, and as old as it is.
_UPSERT_RUN = f"""
INSERT INTO runs ({_RUN_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT (run_id) DO UPDATE SET name = excluded.name, folder = excluded.folder,
    job_id = coalesce(excluded.job_id, job_id), user_id = coalesce(user_id, excluded.user_id)
"""
_KEY = ("run_id", "member", "step", "sample_index")
_UPSERT_PREDICTION = f"""
INSERT INTO predictions ({", ".join(COLUMNS)}) VALUES ({", ".join("?" for _ in COLUMNS)})
ON CONFLICT ({", ".join(_KEY)})
DO UPDATE SET {", ".join(f"{name} = excluded.{name}" for name in COLUMNS if name not in _KEY)}
"""
_ORDER = "ORDER BY runs.created_at, run_id, member, step, sample_index"


class PredictionStore:
    """Opens the store of predictions, and makes it when there is none. A context manager that closes it.

    Every method that meets a damaged, locked, full or unreadable file raises a UserError.

    Args:
        path: of the file, see `store_path`.
        read_only: opens it to read, while others may write. No file is made.
        user_id: nothing but this user's records is seen or deleted.
        patience: seconds to wait for other processes' writes.

    Raises:
        UserError: it is damaged, was made by a newer release, or cannot be opened; there is none to read.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        read_only: bool = False,
        user_id: str | None = None,
        patience: float = PATIENCE,
    ) -> None:
        self.path = Path(path)
        self.user_id = user_id
        self._connection = connect(self.path, read_only=read_only, patience=patience)

    def close(self) -> None:
        self._connection.close()

    def __enter__(self) -> PredictionStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # Writing

    def register(self, run: RunEntry) -> None:
        """Stores a run, which must come before its first prediction. One that is known keeps its owner and its age."""
        values = (run.run_id, run.name, run.folder, run.job_id, run.user_id, run.created_at)
        with self._writing():
            self._connection.execute(_UPSERT_RUN, values)

    def write(self, predictions: Iterable[Prediction]) -> None:
        """Stores all of them or, when it fails, none. One with the key of another takes its place.

        Raises:
            sqlite3.IntegrityError: a run is not registered.
            TypeError: a prediction holds what JSON cannot.
        """
        self.write_rows([to_row(prediction) for prediction in predictions])

    def write_rows(self, rows: Sequence[Row]) -> None:
        """`write` for what `to_row` has made."""
        with self._writing():
            self._connection.executemany(_UPSERT_PREDICTION, rows)

    # Reading

    @contextmanager
    def at_one_moment(self) -> Iterator[None]:
        """What is read in the block is of one moment, whatever is written meanwhile; of the outer one's, in another."""
        if self._connection.in_transaction:
            yield
            return
        with told(self.path):
            self._connection.execute("BEGIN")
        try:
            yield
        finally:
            with told(self.path):
                self._connection.execute("COMMIT")

    def runs(self, *, user: str | None = None, limit: int | None = None, offset: int = 0) -> list[RunEntry]:
        """The runs, newest first.

        Args:
            user: only those that this user owns or has predictions in.
            limit: runs on the page; None for all that are left.
            offset: runs to pass over first.
        """
        where, values = "", []
        for asked in filter(None, (user, self.user_id)):
            where += " AND (user_id = ? OR run_id IN (SELECT run_id FROM predictions WHERE user_id = ?))"
            values += [asked, asked]
        text = f"SELECT {_RUN_COLUMNS} FROM runs WHERE true{where} ORDER BY created_at DESC, run_id LIMIT ? OFFSET ?"
        return [RunEntry(*row) for row in self._read(text, [*values, *_page(limit, offset)])]

    def resolve(self, wanted: str | os.PathLike[str]) -> RunEntry:
        """The run that a person means.

        Args:
            wanted: its folder, the end of its folder's path, its name, its id or the first digits of it.

        Raises:
            UserError: no run or more than one is meant.
        """
        text, root = Path(wanted).as_posix(), self.path.parent.resolve()
        runs = self.runs()
        exact = [run for run in runs if text == run.run_id or (root / run.folder) == Path(wanted).resolve()]
        meant = exact or [run for run in runs if _is_meant(run, text)]
        if not meant:
            raise UserError(f"there are no predictions of a run {text} in {self.path}: give its folder, name or id")
        if len(meant) > 1:
            shown = ", ".join(f"{run.folder} ({run.run_id[:8]})" for run in meant[:3]) + (", …" * (len(meant) > 3))
            raise UserError(f"{text} may be any of {len(meant)} runs ({shown}): give the id of one")
        return meant[0]

    def predictions(
        self,
        *,
        run: str | None = None,
        user: str | None = None,
        epoch: int | None = None,
        sample: int | None = None,
        member: str | None = None,
        limit: int | None = None,
        offset: int = 0,
    ) -> list[Prediction]:
        """A page of predictions: by run, oldest first, then by member, step and sample.

        Args:
            run: id of a run, see `resolve`.
            user, epoch, sample, member: only those with this value.
            limit: records on the page; None for all that are left.
            offset: records to pass over first.

        Raises:
            ValueError: limit or offset is negative.
        """
        found = self.each(run=run, user=user, epoch=epoch, sample=sample, member=member, limit=limit, offset=offset)
        return list(found)

    def each(
        self,
        *,
        run: str | None = None,
        user: str | None = None,
        epoch: int | None = None,
        sample: int | None = None,
        member: str | None = None,
        limit: int | None = None,
        offset: int = 0,
    ) -> Iterator[Prediction]:
        """`predictions`, one after the other, for more than memory should hold."""
        where, values = self._where(run, user, epoch, sample, member)
        columns = ", ".join(f"predictions.{name}" for name in COLUMNS)
        text = f"SELECT {columns} FROM predictions JOIN runs USING (run_id) WHERE {where} {_ORDER} LIMIT ? OFFSET ?"
        return map(to_prediction, self._read(text, [*values, *_page(limit, offset)]))

    def count(
        self,
        *,
        run: str | None = None,
        user: str | None = None,
        epoch: int | None = None,
        sample: int | None = None,
        member: str | None = None,
    ) -> int:
        """How many predictions there are on all pages."""
        where, values = self._where(run, user, epoch, sample, member)
        ((count,),) = self._read(f"SELECT count(*) FROM predictions WHERE {where}", values)
        return int(count)

    def epochs(self, run: str, *, member: str | None = None) -> list[EpochSummary]:
        """What each epoch of a run came to, by member and epoch.

        Args:
            run: id of the run.
            member: only of this one.
        """
        where, values = self._where(run, None, None, None, member)
        counts = (
            "SELECT member, epoch, min(step), max(step), count(*) FROM predictions "
            f"WHERE {where} GROUP BY member, epoch ORDER BY member, epoch"
        )
        means = (
            "SELECT member, epoch, key, avg(value) FROM predictions, json_each(scores) "
            f"WHERE {where} GROUP BY member, epoch, key ORDER BY min(predictions.id), min(json_each.id)"
        )
        with self.at_one_moment():
            scores: dict[tuple[str, int], dict[str, float]] = {}
            for name, epoch, score, mean in self._read(means, values):
                scores.setdefault((name, epoch), {})[score] = math.nan if mean is None else mean
            return [
                EpochSummary(name, epoch, first, last, records, scores.get((name, epoch), {}))
                for name, epoch, first, last, records in self._read(counts, values)
            ]

    # Deleting

    def delete_run(self, run_id: str) -> int:
        """Deletes a run with its predictions, and returns how many there were. Of another user's run, one who sees
        nothing but the own records deletes these alone.

        Raises:
            UserError: there is no such run.
        """
        if all(run.run_id != run_id for run in self.runs()):
            raise UserError(f"there are no predictions of a run {run_id} in {self.path}: give another id")
        own, values = ("", []) if self.user_id is None else (" AND user_id = ?", [self.user_id])
        with self._writing():
            before = self._total()
            self._connection.execute(f"DELETE FROM runs WHERE run_id = ?{own}", [run_id, *values])
            self._connection.execute(f"DELETE FROM predictions WHERE run_id = ?{own}", [run_id, *values])
            return before - self._total()

    def delete_user(self, user_id: str) -> int:
        """Deletes a user's predictions wherever they are and a user's runs with all that is in them, and returns how
        many predictions there were.

        Raises:
            UserError: there is nothing of such a user.
        """
        if self.user_id not in (None, user_id) or not self.runs(user=user_id):
            raise UserError(f"there is nothing of a user {user_id} in {self.path}: give another id")
        with self._writing():
            before = self._total()
            self._connection.execute("DELETE FROM runs WHERE user_id = ?", [user_id])
            self._connection.execute("DELETE FROM predictions WHERE user_id = ?", [user_id])
            return before - self._total()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        with told(self.path), transaction(self._connection):
            yield

    def _read(self, text: str, values: Sequence[Any] = ()) -> Iterator[Any]:
        with told(self.path):
            cursor = self._connection.execute(text, values)
            while rows := cursor.fetchmany(1000):
                yield from rows

    def _total(self) -> int:
        return int(self._connection.execute("SELECT count(*) FROM predictions").fetchone()[0])

    def _where(
        self, run: str | None, user: str | None, epoch: int | None, sample: int | None, member: str | None
    ) -> tuple[str, list[Any]]:
        asked = {"run_id": run, "predictions.user_id": user, "epoch": epoch, "sample_index": sample, "member": member}
        given = [(name, value) for name, value in asked.items() if value is not None]
        given += [("predictions.user_id", self.user_id)] if self.user_id is not None else []
        return " AND ".join(["true", *(f"{name} = ?" for name, _ in given)]), [value for _, value in given]


def delete_predictions_of(run: RunRecord) -> int:
    """Deletes what is stored of a run that is deleted, and returns how many predictions there were.

    Raises:
        UserError: they cannot be deleted.
    """
    path = store_path_of(run.folder)
    if not path.is_file():
        return 0
    with PredictionStore(path) as store:
        return store.delete_run(run.id) if any(known.run_id == run.id for known in store.runs()) else 0


def _page(limit: int | None, offset: int) -> tuple[int, int]:
    if offset < 0 or (limit is not None and limit < 0):
        raise ValueError(f"limit {limit} and offset {offset} count records")
    return (-1 if limit is None else limit), offset


def _is_meant(run: RunEntry, text: str) -> bool:
    return bool(text) and (run.run_id.startswith(text) or f"/{run.folder}".endswith(f"/{text}") or run.name == text)
