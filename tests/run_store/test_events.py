from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from run_store import UserError
from run_store.events import append_event, read_events

CHECKOUT = Path(__file__).resolve().parents[2]
EVENTS = st.lists(st.dictionaries(st.text(), st.integers() | st.text() | st.none()), max_size=4)


def test_lines_come_back_in_order(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    events = [{"event": "created"}, {"event": "größer\u2028\n", "lone": "\ud800"}]
    for event in events:
        append_event(path, event)
    assert read_events(path) == events
    assert path.read_bytes().count(b"\n") == 2


def test_a_file_that_is_missing_has_no_events(tmp_path: Path) -> None:
    assert read_events(tmp_path / "events.jsonl") == []


@settings(max_examples=30)  # each line waits for the disk
@given(before=EVENTS, cut=st.integers(1, 30), after=EVENTS)
def test_a_torn_line_is_ignored_and_repaired_by_the_next(
    tmp_path_factory: pytest.TempPathFactory, before: list[dict[str, Any]], cut: int, after: list[dict[str, Any]]
) -> None:
    path = tmp_path_factory.mktemp("torn") / "events.jsonl"
    for event in before:
        append_event(path, event)
    torn = json.dumps({"event": "an event cut short by a kill"}).encode()[:cut]
    with open(path, "ab") as file:
        file.write(torn)
    assert read_events(path) == before
    for event in after:
        append_event(path, event)
    assert read_events(path) == before + after
    assert not after or torn + b"{" not in path.read_bytes()
    assert not after or all(json.loads(line) is not None for line in path.read_bytes().splitlines())


def test_a_torn_line_longer_than_a_block_is_removed_too(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    append_event(path, {"number": 1})
    with open(path, "ab") as file:
        file.write(b"x" * 10_000)
    append_event(path, {"number": 2})
    assert path.read_text() == '{"number": 1}\n{"number": 2}\n'
    path.write_bytes(b"x" * 10_000)
    append_event(path, {"number": 3})
    assert path.read_text() == '{"number": 3}\n'


def test_lines_that_are_no_events_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(b'{"number": 1}\nnoise\n\xff\n[3]\n\n{"number": 2}\n')
    assert read_events(path) == [{"number": 1}, {"number": 2}]


def test_writers_do_not_cut_into_each_other(tmp_path: Path) -> None:
    code = """
import sys
from run_store.events import append_event
for number in range(50):
    append_event(sys.argv[1], {"writer": sys.argv[2], "number": number, "filler": "x" * 500})
"""
    path = tmp_path / "events.jsonl"
    writers = [
        subprocess.Popen([sys.executable, "-c", code, str(path), str(writer)], cwd=CHECKOUT) for writer in range(3)
    ]
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    events = read_events(path)
    for writer in range(3):
        assert [event["number"] for event in events if event["writer"] == str(writer)] == list(range(50))


def test_a_full_disk_keeps_the_lines_that_were_there(small_disk: Path) -> None:
    path = small_disk / "events.jsonl"
    append_event(path, {"number": 1})
    with pytest.raises(UserError, match=f"no space left on the disk of {path}: free some space"):
        append_event(path, {"number": 2, "filler": "x" * 100_000})
    assert path.read_text() == '{"number": 1}\n'
