from __future__ import annotations

from pathlib import Path

import pytest

from run_store.predictions import entry_of, job_id, job_user_id, store_path, store_path_of
from tests.run_store.conftest import NewRun


@pytest.mark.parametrize(("value", "expected"), [("7", "7"), ("", None), (None, None), ("\udcff", "?")])
def test_ids_come_from_the_environment_and_are_unset_when_empty(
    monkeypatch: pytest.MonkeyPatch, value: str | None, expected: str | None
) -> None:
    for name in ("JOB_ID", "JOB_USER_ID"):
        monkeypatch.delenv(name, raising=False) if value is None else monkeypatch.setenv(name, value)
    assert job_id() == job_user_id() == expected


def test_the_runs_of_one_folder_share_a_store(new_run: NewRun, tmp_path: Path) -> None:
    one, other = new_run("sae"), new_run("embedder")
    assert store_path_of(one.folder) == store_path_of(other.folder) == store_path(tmp_path / "runs")


def test_a_run_that_lies_elsewhere_has_its_own(tmp_path: Path) -> None:
    assert store_path_of(tmp_path) == store_path(tmp_path)


def test_what_is_kept_of_a_run(new_run: NewRun, tmp_path: Path) -> None:
    record = new_run("sae")
    entry = entry_of(record, {"JOB_ID": "7", "JOB_USER_ID": "ann"})
    assert (entry.run_id, entry.name, entry.job_id, entry.user_id) == (record.id, "sae", "7", "ann")
    assert tmp_path / "runs" / entry.folder == record.folder
    assert not Path(entry.folder).is_absolute()
    assert entry_of(record, {}).user_id is None
