from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from run_store import UserError
from run_store.events import append_event, end_of_events, read_events_from
from run_store.following import RunFollower, RunsFollower, last_events
from run_store.locks import RunLock

NewRun = Any  # the fixture of conftest.py


def told(events: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(event["run"], event["status"]) for event in events]


def test_a_run_is_followed_to_its_end(new_run: NewRun) -> None:
    record = new_run()
    follower = RunFollower(record.folder)
    assert told(follower.new_events()) == [(record.id, "pending")]
    assert not follower.has_ended(), "somebody is still to begin it"
    with RunLock(record.folder):
        record.begin_attempt()
        assert not follower.has_ended()
        assert told(follower.new_events()) == [(record.id, "initialising")]
    assert follower.has_ended(), "it was killed"
    assert follower.new_events() == []
    (record.folder / "metadata.json").unlink()
    with pytest.raises(UserError, match="is no run"):
        follower.has_ended()


def test_all_runs_are_followed_from_now_on(new_run: NewRun, tmp_path: Path) -> None:
    root = tmp_path / "runs"
    one, other = new_run(), new_run()
    follower = RunsFollower(root)
    assert follower.new_events() == []
    other.move_to("failed")
    third = new_run()
    one.move_to("failed")
    assert told(follower.new_events()) == [(other.id, "failed"), (third.id, "pending"), (one.id, "failed")]
    assert follower.new_events() == []
    append_event(one.folder / "events.jsonl", {"run": one.id, "status": "an instant later", "time": "9"})
    one.label(note="n")
    assert told(follower.new_events()) == [(one.id, "failed"), (one.id, "an instant later")]


def test_the_last_events_of_all_runs(new_run: NewRun, tmp_path: Path) -> None:
    root = tmp_path / "runs"
    assert last_events(root, 3) == []
    records = [new_run(k=number) for number in range(4)]
    records[0].move_to("failed")
    expected = [(records[2].id, "pending"), (records[3].id, "pending"), (records[0].id, "failed")]
    assert told(last_events(root, 3)) == expected
    assert last_events(root, 0) == []
    assert len(last_events(root, 99)) == 5


def test_reading_goes_on_behind_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    assert (read_events_from(path, 7), end_of_events(path)) == (([], 0), 0)
    append_event(path, {"number": 1})
    events, offset = read_events_from(path, 0)
    assert (events, offset) == ([{"number": 1}], end_of_events(path))
    with open(path, "ab") as file:
        file.write(b'{"num')
    assert read_events_from(path, offset) == ([], offset)
    assert end_of_events(path) == offset
    append_event(path, {"number": 2})
    assert read_events_from(path, offset)[0] == [{"number": 2}]
    path.write_bytes(b'{"a": 1}\n')  # another file
    assert read_events_from(path, offset)[0] == [{"a": 1}]
