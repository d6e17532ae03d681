from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy
import pytest
from safetensors.numpy import save_file

from run_store import UserError
from run_store.completion import completion_of, describe_outputs, problem_of
from run_store.record import OutputFile, RunRecord

NewRun = Any  # the fixture of conftest.py
NAMES = ["checkpoints/model.safetensors", "checkpoints/state.ckpt", "config.1.yaml", "metrics.json", "samples.jsonl"]


@pytest.fixture
def complete(new_run: NewRun) -> RunRecord:
    """A run that is complete with a file of each kind."""
    record: RunRecord = new_run()
    (record.folder / "checkpoints").mkdir()
    save_file({"W_dec": numpy.ones((4, 3), "float32"), "b": numpy.ones(3)}, record.folder / NAMES[0])
    (record.folder / NAMES[1]).write_bytes(b"the rest")
    (record.folder / NAMES[2]).write_text("seed_everything: 0\n")
    (record.folder / NAMES[3]).write_text('{"val/fvu": 0.1}')
    (record.folder / NAMES[4]).write_text('{"index": 0}\n{"index": 1}\n')
    record.begin_attempt()
    record.move_to("running")
    record.complete(describe_outputs(record.folder, NAMES))
    return record


def why_not(record: RunRecord, **how: bool) -> str:
    completion = completion_of(record.folder, **how)
    assert not completion.complete
    return completion.reason


def test_complete_is_status_and_files(complete: RunRecord) -> None:
    assert completion_of(complete.folder).complete
    assert completion_of(complete.folder).reason == ""


def test_a_run_may_be_moved(complete: RunRecord, tmp_path: Path) -> None:
    os.rename(complete.folder, tmp_path / "v1")
    assert completion_of(tmp_path / "v1").complete


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_file_makes_it_incomplete(complete: RunRecord, name: str) -> None:
    (complete.folder / name).unlink()
    assert why_not(complete) == f"{name} is missing"


@pytest.mark.parametrize("name", NAMES)
def test_an_empty_file_makes_it_incomplete(complete: RunRecord, name: str) -> None:
    (complete.folder / name).write_bytes(b"")
    assert why_not(complete) == f"{name} is empty"


@pytest.mark.parametrize("name", NAMES)
def test_a_flipped_bit_makes_it_incomplete(complete: RunRecord, name: str) -> None:
    path = complete.folder / name
    content = bytearray(path.read_bytes())
    content[-3] ^= 1  # in data, in the last value or in a word: each file still parses or says that it does not
    path.write_bytes(content)
    assert why_not(complete).startswith(name)


def test_without_looking_at_hashes_a_flipped_bit_is_not_seen(complete: RunRecord) -> None:
    (complete.folder / NAMES[1]).write_bytes(b"the test")
    assert why_not(complete) == f"{NAMES[1]} is not the file that was written (its sha256 differs)"
    assert completion_of(complete.folder, verify=False).complete
    (complete.folder / NAMES[1]).write_bytes(b"the")
    assert why_not(complete, verify=False) == f"{NAMES[1]} has 3 bytes instead of 8"


@pytest.mark.parametrize("status", ["initialising", "running", "paused", "failed", "interrupted"])
def test_files_without_the_status_are_not_enough(complete: RunRecord, status: Any) -> None:
    complete.status = status
    complete.write("status")
    assert why_not(complete) == f"its status is {status}"


def test_the_status_without_files_is_not_enough(complete: RunRecord) -> None:
    complete.outputs = []
    complete.write("status")
    assert why_not(complete) == "its record names no outputs"


@pytest.mark.parametrize("name", ["../elsewhere.json", "/etc/hostname", "a\\b"])
def test_files_elsewhere_do_not_count(complete: RunRecord, name: str) -> None:
    complete.outputs = [OutputFile(name, 1, "5ca1ab1e")]
    complete.write("status")
    assert why_not(complete) == f"{name} is outside of the run's folder"


def test_a_damaged_record_is_incomplete_and_says_so(complete: RunRecord) -> None:
    (complete.folder / "metadata.json").write_text("{")
    assert "metadata.json is damaged" in why_not(complete)
    (complete.folder / "metadata.json").unlink()
    assert "has no metadata.json" in why_not(complete)


def test_a_run_cannot_be_completed_with_a_bad_file(complete: RunRecord) -> None:
    (complete.folder / "metrics.json").write_text("{")
    with pytest.raises(UserError, match=r"cannot be completed, since metrics\.json is not JSON: train it again"):
        describe_outputs(complete.folder, NAMES)
    with pytest.raises(UserError, match=r"other\.json is missing"):
        describe_outputs(complete.folder, ["other.json"])


HEADER = json.dumps({"W": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
WHOLE = len(HEADER).to_bytes(8, "little") + HEADER + bytes(8)


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("a.json", b'{"a": 1}', None),
        ("a.json", b'{"a": 1', "is not JSON"),
        ("a.json", b"[" * 100_000, "is not JSON"),
        ("a.json", b"\xff\xff", "is not JSON"),
        ("a.jsonl", b'{"a": 1}\n[]\n', None),
        ("a.jsonl", b'{"a": 1}\n[]', "ends in the middle of a line"),
        ("a.jsonl", b'{"a": 1}\n[\n', "is not JSON"),
        ("a.yaml", "größe: 1\n".encode(), None),
        ("a.yaml", b"\xff\xfe", "is not text"),
        ("a.yml", b"a: 1\x00", "is not text"),
        ("a.yaml", b" \n", "is empty"),
        ("a.safetensors", WHOLE, None),
        ("a.safetensors", (2).to_bytes(8, "little") + b"{}", None),
        ("a.safetensors", WHOLE[:-1], "is cut off"),
        ("a.safetensors", WHOLE + b"x", "is cut off"),
        ("a.safetensors", WHOLE[:20], "is cut off"),
        ("a.safetensors", WHOLE[:5], "is cut off"),
        ("a.safetensors", bytes(8), "has a damaged header"),
        ("a.safetensors", WHOLE.replace(b"data_offsets", b"data_offsetz"), "has a damaged header"),
        ("a.safetensors", (2).to_bytes(8, "little") + b"[]", "has a damaged header"),
        ("a.ckpt", b"anything", None),
        ("a.ckpt", b"", "is empty"),
    ],
)
def test_files_are_looked_into(tmp_path: Path, name: str, content: bytes, problem: str | None) -> None:
    (tmp_path / name).write_bytes(content)
    assert problem_of(tmp_path / name) == problem


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "metrics.json").mkdir()
    assert problem_of(tmp_path / "metrics.json") == "is missing"
