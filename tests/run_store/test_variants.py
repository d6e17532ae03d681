from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from run_store import UserError
from run_store.variants import claim_variant

CHECKOUT = Path(__file__).resolve().parents[2]


def test_numbers_follow_each_other(tmp_path: Path) -> None:
    folder = tmp_path / "sae" / "spec"
    assert [claim_variant(folder) for _ in range(3)] == [folder / "v1", folder / "v2", folder / "v3"]
    assert all(path.is_dir() for path in folder.iterdir())


def test_a_number_in_the_middle_is_not_used_again(tmp_path: Path) -> None:
    for name in ("v1", "v9", "v10", "v01", "v11.5.partial", "notes"):
        (tmp_path / name).mkdir()
    assert claim_variant(tmp_path).name == "v11"


def test_a_file_in_the_way_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "v1").write_text("not a run")
    assert claim_variant(tmp_path).name == "v2"


def test_ten_starts_at_once_get_ten_numbers_without_a_gap(tmp_path: Path) -> None:
    code = """
import sys
from run_store.variants import claim_variant
print("ready", flush=True)
sys.stdin.read()
print(claim_variant(sys.argv[1]).name)
"""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path / "identity")],
            cwd=CHECKOUT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(10)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.close()  # all at once, as nearly as may be
    names = []
    for process in processes:
        assert process.stdout is not None
        names.append(process.stdout.read().strip())
        process.wait()
    assert sorted(names, key=lambda name: int(name[1:])) == [f"v{number}" for number in range(1, 11)]
    assert sorted(path.name for path in (tmp_path / "identity").iterdir()) == sorted(names)


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=f"cannot make a run in {tmp_path}/file/identity .*: choose another folder"):
        claim_variant(tmp_path / "file" / "identity")
