"""Numbers of runs."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from run_store.numbers import number_of


def new_run(root: Path, identity: int, name: str = "sae") -> Path:
    folder = root / name / f"spec-{identity:08x}_exec-00000000" / "v1"
    folder.mkdir(parents=True)
    return folder


def test_a_number_stays_a_runs_and_is_given_once(tmp_path: Path) -> None:
    runs = [new_run(tmp_path, identity) for identity in range(3)]
    assert [number_of(run) for run in runs] == [1, 2, 3]
    assert [number_of(run) for run in reversed(runs)] == [3, 2, 1]
    shutil.rmtree(runs[2])
    assert number_of(new_run(tmp_path, 9)) == 4
    assert number_of(new_run(tmp_path, 0, "other")) == 1


@pytest.mark.parametrize("content", ["", "{", "[]", '{"number": "x"}'])
def test_a_damaged_number_is_given_anew(tmp_path: Path, content: str) -> None:
    run = new_run(tmp_path, 0)
    (run / "number.json").write_text(content)
    assert number_of(run) == number_of(run) == 1


def test_starts_at_one_time_get_different_numbers(tmp_path: Path) -> None:
    runs = [new_run(tmp_path, identity) for identity in range(40)]
    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(number_of, runs)) == list(range(1, 41))
