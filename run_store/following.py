"""Following what happens to one run or to all of them, by their events.jsonl."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from run_store.events import end_of_events, read_events_from
from run_store.layout import EVENTS_NAME
from run_store.locks import is_held
from run_store.record import read_record
from run_store.registry import list_runs, stamps
from run_store.run_index import RunQuery

Event = dict[str, Any]


class RunFollower:
    """Follows one run.

    Args:
        folder: of the run.
        from_end: passes over what has happened already.
    """

    def __init__(self, folder: str | os.PathLike[str], from_end: bool = False) -> None:
        self.folder = Path(folder)
        self._offset = end_of_events(self.folder / EVENTS_NAME) if from_end else 0

    def new_events(self) -> list[Event]:
        """What has happened since the last call, oldest first."""
        events, self._offset = read_events_from(self.folder / EVENTS_NAME, self._offset)
        return events

    def has_ended(self) -> bool:
        """Whether nobody works on the run and it waits for nobody to begin.

        Raises:
            UserError: the run is gone.
        """
        return not is_held(self.folder) and read_record(self.folder).status != "pending"


class RunsFollower:
    """Follows all runs below a folder from now on, and those that are still to come. A run's events are looked at when
    the index is told that its record has changed.

    Args:
        root: the folder of all runs.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = Path(root)
        self._stamps = stamps(root)
        self._followers = {folder: RunFollower(folder, from_end=True) for folder in self._stamps}
        self._changed: set[Path] = set()

    def new_events(self) -> list[Event]:
        """What has happened since the last call, oldest first."""
        before, self._stamps = self._stamps, stamps(self.root)
        changed = {folder for folder, stamp in self._stamps.items() if before.get(folder) != stamp}
        # a record changes an instant before its event is written: those that changed last time are looked at again
        looked_at, self._changed = changed | self._changed, changed
        events = [event for folder in sorted(looked_at) for event in self._follower(folder).new_events()]
        return _in_order(events)

    def _follower(self, folder: Path) -> RunFollower:
        return self._followers.setdefault(folder, RunFollower(folder))


def last_events(root: str | os.PathLike[str], count: int) -> list[Event]:
    """The newest events of all runs, oldest first."""
    # each change of a record brings an event: the newest are found where something changed last
    changed = list_runs(root, RunQuery(order="changed", limit=count)).runs
    events = [event for run in changed for event in RunFollower(run.folder).new_events()]
    return _in_order(events)[-count:] if count else []


def _in_order(events: list[Event]) -> list[Event]:
    return sorted(events, key=lambda event: str(event.get("time")))
