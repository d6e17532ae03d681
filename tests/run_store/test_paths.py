"""Paths in one form."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath, PureWindowsPath

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from run_store import UserError
from run_store.layout import identity_folder
from run_store.paths import LONGEST_COMPONENT, normalised, place_here

PARTS = st.text(st.characters(exclude_characters="/\\:\x00", exclude_categories=["Cs"]), min_size=1, max_size=12)
LONG = st.text("aü字", min_size=60, max_size=300)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("runs", "runs"),
        ("./runs//sae/", "runs/sae"),
        ("", "."),
        ("/", "/"),
        (".", "."),
        ("../runs/./x", "../runs/x"),
        (r"runs\sae", "runs/sae"),
        (r"runs\\sae/v1", "runs/sae/v1"),
        (r"c:\runs\x", "C:/runs/x"),
        ("C:/runs/x", "C:/runs/x"),
        ("c:", "C:"),
        (r"c:runs", "C:runs"),
        (r"\\server\share\x\y", "//server/share/x/y"),
        (r"\\server\share", "//server/share"),
        ("//server/share//x", "//server/share/x"),
        ("//tmp", "/tmp"),
        ("///a/b", "/a/b"),
        (r"\\?\C:\runs", "C:/runs"),
        (r"\\?\UNC\server\share\x", "//server/share/x"),
        (Path("stores/x"), "stores/x"),
    ],
)
def test_one_form(path: str | Path, expected: str) -> None:
    assert normalised(path) == expected


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=40) | st.text("/\\.:?aC", max_size=12) | LONG)
@example("\\\\?\\\\\\?\\a")
@example("//?/C:/x")
def test_it_stays_in_this_form(path: str) -> None:
    assume("\x00" not in path)
    once = normalised(path)
    assert "\\" not in once
    assert all(len(part.encode()) <= LONGEST_COMPONENT for part in once.split("/"))
    assert normalised(once) == once


@given(st.lists(PARTS, min_size=1, max_size=5), st.booleans())
def test_a_short_path_of_this_system_is_the_same_place(parts: list[str], is_absolute: bool) -> None:
    path = ("/" if is_absolute else "") + "/".join(parts)
    assert PurePosixPath(normalised(path)) == PurePosixPath(path)


@given(st.sampled_from(["", "C:\\", "d:\\", "\\\\server\\share\\"]), st.lists(PARTS, min_size=1, max_size=5))
def test_a_short_path_of_windows_is_the_same_place_there(root: str, parts: list[str]) -> None:
    path = root + "\\".join(parts)
    assert PureWindowsPath(normalised(path)) == PureWindowsPath(path)


@given(LONG, LONG)
def test_long_names_stay_two_and_keep_their_beginning(name: str, other: str) -> None:
    short = normalised(f"runs/{name}")
    assert (short == normalised(f"runs/{other}")) == (name == other)
    assert short[:40] == f"runs/{name}"[:40]


def test_a_long_name_can_be_a_folders_and_is_the_same_at_any_time(tmp_path: Path) -> None:
    long = normalised(tmp_path / ("字" * 200))
    Path(long, "x").mkdir(parents=True)
    assert normalised("n" * 300) == "n" * 217 + "~230b07749195"


@pytest.mark.skipif(os.name == "nt", reason="Windows has these places")
@pytest.mark.parametrize("path", [r"C:\runs", "c:/runs", r"\\server\share\runs", r"\\?\C:\runs"])
def test_a_place_of_windows_is_refused_elsewhere(path: str) -> None:
    with pytest.raises(UserError, match=r"^run\.folder is .*, a place of Windows, which this machine has not: choose"):
        place_here(path, "run.folder")
    assert place_here(r"runs\here", "run.folder") == "runs/here"


def test_folders_of_runs_are_named_in_this_form() -> None:
    assert identity_folder(r".\runs\all", "sae", "0" * 64, "1" * 64) == Path("runs/all/sae/spec-00000000_exec-11111111")
