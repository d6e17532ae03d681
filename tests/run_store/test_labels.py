from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from run_store import UserError
from run_store.labels import Labels, check_tags, read_labels, write_labels
from run_store.record import read_record

CHECKOUT = Path(__file__).resolve().parents[2]
NewRun = Any  # the fixture of conftest.py


def test_labels_come_back(tmp_path: Path) -> None:
    assert read_labels(tmp_path) == Labels()
    labels = Labels(("good", "größer"), "a note\nof two lines")
    write_labels(tmp_path, labels)
    assert read_labels(tmp_path) == labels


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"7", b"{}", b'{"tags": 7, "note": ""}', b"\xff"])
def test_a_run_is_not_lost_by_damaged_labels(new_run: NewRun, content: bytes) -> None:
    record = new_run()
    (record.folder / "labels.json").write_bytes(content)
    assert read_record(record.folder) == record
    record.label(note="again")
    assert read_record(record.folder).labels == Labels((), "again")


@pytest.mark.parametrize("tag", ["", " ", "two\nlines", "x" * 101])
def test_what_is_no_tag_is_refused(tag: str) -> None:
    with pytest.raises(UserError, match=r"a tag is one line of 1 to 100 characters"):
        check_tags(["good", tag])
    assert check_tags(["b", "a", "b"]) == ("b", "a")


def test_two_who_label_at_once_lose_nothing(new_run: NewRun) -> None:
    record = new_run()
    code = """
import sys
from run_store.record import read_record
record = read_record(sys.argv[1])
for number in range(15):
    record.label(**{sys.argv[2]: [f"tag {number}"] if sys.argv[2] == "tags" else f"note {number}"})
"""
    command = [sys.executable, "-c", code, str(record.folder)]
    writers = [subprocess.Popen([*command, which], cwd=CHECKOUT) for which in ("tags", "note")]
    assert [writer.wait() for writer in writers] == [0, 0]
    assert read_record(record.folder).labels == Labels(("tag 14",), "note 14")
    assert len(record.history()) == 31
