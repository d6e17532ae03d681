from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from run_store import UserError
from run_store.layout import check_name, identity_folder, newest_config, variant_folders, variant_number

SPEC, EXECUTION = "0123456789abcdef" * 4, "fedcba9876543210" * 4


def test_the_folder_names_both_fingerprints() -> None:
    folder = identity_folder("runs", "sae", SPEC, EXECUTION)
    assert folder == Path("runs/sae/spec-01234567_exec-fedcba98")


@pytest.mark.parametrize("name", ["sae", "TopK 32x", "v1.2-rc_3", "größe", "a" * 100, "console"])
def test_names_that_every_file_system_takes(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("", "it is empty"),
        ("  ", "it is empty"),
        ("a/b", "a separator"),
        ("a\\b", "a separator"),
        ("C:runs", "a separator"),
        ("what?", "a wildcard"),
        ("a\nb", "a control character"),
        ("..", "starts with a dot"),
        (".hidden", "starts with a dot"),
        ("-rf", "starts with a dot, a dash"),
        ("end.", "ends with a dot"),
        ("end ", "ends with a dot or a space"),
        ("nul", "for a device"),
        ("COM1.txt", "for a device"),
        ("a" * 101, "takes 101 bytes"),
        ("ü" * 51, "takes 102 bytes"),
        ("\ud800", "not valid Unicode"),
    ],
)
def test_names_that_some_file_system_refuses_are_refused_here(name: str, problem: str) -> None:
    with pytest.raises(UserError, match=rf"^run\.name .* cannot name a folder \(.*{problem}.*\): choose"):
        identity_folder("runs", name, SPEC, EXECUTION)


@settings(max_examples=200)
@given(name=st.text(max_size=30))
def test_a_name_that_passes_is_one_folder_below_the_root(tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    try:
        check_name(name)
    except UserError:
        return
    folder = tmp_path_factory.getbasetemp() / name
    folder.mkdir(exist_ok=True)
    assert folder.parent == tmp_path_factory.getbasetemp()
    assert name in {path.name for path in folder.parent.iterdir()}


def test_variants_are_folders_with_a_number(tmp_path: Path) -> None:
    for name in ("v2", "v10", "v1", "v0", "v01", "v3.77.partial", "x1"):
        (tmp_path / name).mkdir()
    (tmp_path / "v4").write_text("a file")
    assert [path.name for path in variant_folders(tmp_path)] == ["v1", "v2", "v10"]
    assert variant_number(tmp_path / "v10") == 10
    assert variant_number(tmp_path) is None


def test_a_folder_that_is_missing_has_no_variants(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert variant_folders(tmp_path / "missing") == variant_folders(tmp_path / "file") == []


def test_the_newest_settings_are_those_of_the_highest_number(tmp_path):
    assert newest_config(tmp_path) is None
    for name in ("config.2.yaml", "config.10.yaml", "config.yaml", "config.mine.yaml", "config.11.yaml.bak"):
        (tmp_path / name).touch()
    assert newest_config(tmp_path) == tmp_path / "config.10.yaml"
