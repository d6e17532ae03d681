from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from run_store import code_state as module
from run_store.code_state import CodeState, code_state

pytestmark = pytest.mark.skipif(not shutil.which("git"), reason="needs git")

AUTHOR = ["-c", "user.name=tester", "-c", "user.email=tester@example.org", "-c", "commit.gpgsign=false"]


def git(folder: Path, *arguments: str) -> str:
    return subprocess.run(
        ["git", "-C", str(folder), *AUTHOR, *arguments], capture_output=True, check=True, text=True
    ).stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A repository with one commit: two sources, one of them in a subfolder, and notes."""
    folder = tmp_path / "checkout"
    (folder / "package").mkdir(parents=True)
    (folder / "main.py").write_text("print(1)\n")
    (folder / "package" / "inner.py").write_text("x = 1\n")
    (folder / "README.md").write_text("notes\n")
    (folder / ".gitignore").write_text("/ignored/\n")
    git(tmp_path, "init", "--quiet", "--initial-branch=trunk", str(folder))
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "-m", "first")
    return folder


def test_a_clean_checkout_is_its_commit(checkout: Path) -> None:
    assert code_state(checkout) == CodeState(git(checkout, "rev-parse", "HEAD"), "trunk")


def test_a_subfolder_gives_the_same_answer(checkout: Path) -> None:
    (checkout / "main.py").write_text("print(2)\n")
    assert code_state(checkout / "package") == code_state(checkout)
    assert code_state(checkout).dirty


def test_every_change_of_a_source_has_a_hash_of_its_own(checkout: Path) -> None:
    seen = [code_state(checkout)]

    def look() -> CodeState:
        seen.append(code_state(checkout))
        return seen[-1]

    (checkout / "main.py").write_text("print(2)\n")
    assert look().dirty
    (checkout / "main.py").write_text("print(3)\n")
    look()
    git(checkout, "add", "main.py")
    assert code_state(checkout) == seen[-1]  # staged or not, the code is the same
    (checkout / "package" / "new.py").write_text("")
    look()
    (checkout / "package" / "new.py").rename(checkout / "package" / "newer.py")
    look()
    (checkout / "package" / "inner.py").unlink()
    look()
    (checkout / "package" / "inner.py").symlink_to("newer.py")
    look()
    assert len({state.diff_sha256 for state in seen}) == len(seen) == 7
    assert {state.commit for state in seen} == {seen[0].commit}


def test_a_change_taken_back_gives_the_old_state_back(checkout: Path) -> None:
    before = code_state(checkout)
    (checkout / "main.py").write_text("print(2)\n")
    (checkout / "new.py").write_text("")
    git(checkout, "checkout", "--quiet", "main.py")
    (checkout / "new.py").unlink()
    assert code_state(checkout) == before


def test_notes_configs_and_ignored_files_do_not_count(checkout: Path) -> None:
    before = code_state(checkout)
    (checkout / "README.md").write_text("other notes\n")
    (checkout / "config.yaml").write_text("k: 1\n")
    (checkout / "ignored").mkdir()
    (checkout / "ignored" / "scratch.py").write_text("")
    assert code_state(checkout) == before


def test_settings_for_diffs_do_not_change_the_hash(checkout: Path) -> None:
    (checkout / "package" / "grüße one.py").write_text("x = 1\ny = 2\n")
    (checkout / "main.py").write_text("print(2)\n")
    before = code_state(checkout)
    for setting in ("core.quotePath false", "diff.noprefix true", "diff.external /bin/false", "color.ui always"):
        git(checkout, "config", *setting.split())
    assert code_state(checkout) == before


def test_the_branch_is_told_but_is_no_identity(checkout: Path) -> None:
    before = code_state(checkout)
    git(checkout, "checkout", "--quiet", "-b", "other")
    other = code_state(checkout)
    git(checkout, "checkout", "--quiet", "--detach")
    assert (before.branch, other.branch, code_state(checkout).branch) == ("trunk", "other", None)
    assert before.identity() == other.identity() == code_state(checkout).identity()


def test_before_the_first_commit_everything_is_a_change(tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet", "--initial-branch=trunk")
    (tmp_path / "main.py").write_text("print(1)\n")
    git(tmp_path, "add", ".")
    state = code_state(tmp_path)
    assert (state.commit, state.branch, state.dirty) == (None, "trunk", True)
    assert state.diff_sha256 is not None


def test_a_shallow_clone_knows_its_commit(checkout: Path, tmp_path: Path) -> None:
    (checkout / "main.py").write_text("print(2)\n")
    git(checkout, "commit", "--quiet", "-am", "second")
    git(tmp_path, "clone", "--quiet", "--depth", "1", f"file://{checkout}", str(tmp_path / "shallow"))
    assert code_state(tmp_path / "shallow") == code_state(checkout)


def test_a_hooks_environment_does_not_lead_elsewhere(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = code_state(checkout)
    monkeypatch.setenv("GIT_DIR", "/nowhere")
    monkeypatch.setenv("GIT_INDEX_FILE", "/nowhere/index")
    assert code_state(checkout) == expected


def files_of(folder: Path) -> str:
    state = code_state(folder)
    assert (state.commit, state.branch, state.dirty, state.diff_sha256) == (None, None, False, None)
    assert state.files_sha256 is not None
    return state.files_sha256


def test_outside_git_the_sources_are_hashed(checkout: Path) -> None:
    shutil.rmtree(checkout / ".git")
    before = files_of(checkout)
    (checkout / "README.md").write_text("other notes\n")
    (checkout / "__pycache__").mkdir()
    (checkout / "__pycache__" / "cached.py").write_text("")
    (checkout / "env").mkdir()
    (checkout / "env" / "pyvenv.cfg").touch()
    (checkout / "env" / "library.py").write_text("")
    assert files_of(checkout) == before
    (checkout / "package" / "inner.py").write_text("x = 2\n")
    assert files_of(checkout) != before


def test_without_git_the_sources_are_hashed(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(checkout))
    with_nothing = files_of(checkout)
    shutil.rmtree(checkout / ".git")
    assert files_of(checkout) == with_nothing


def test_a_git_that_hangs_is_not_waited_for(checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "git").write_text("#!/bin/sh\nexec sleep 60\n")
    (tmp_path / "bin" / "git").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(module, "GIT_TIMEOUT", 0.2)
    files_of(checkout)


def test_an_environment_inside_a_checkout_is_not_the_checkout(checkout: Path) -> None:
    installed = checkout / "ignored" / "library"
    installed.mkdir(parents=True)
    (installed / "module.py").write_text("x = 1\n")
    before = files_of(installed)
    (checkout / "main.py").write_text("print(2)\n")
    assert files_of(installed) == before


def test_damaged_git_data_and_missing_folders_raise_nothing(checkout: Path, tmp_path: Path) -> None:
    (checkout / ".git" / "HEAD").write_text("not a ref")
    files_of(checkout)
    files_of(tmp_path / "missing")


def test_the_projects_own_code_is_the_default() -> None:
    state = code_state()
    assert state.commit or state.files_sha256
    assert state == code_state(Path(module.__file__).parents[1])


def test_an_installed_project_is_hashed_without_its_neighbours(tmp_path: Path) -> None:
    site = tmp_path / "site-packages"
    information = site / "fulgurite-0.1.0.dist-info"
    information.mkdir(parents=True)
    shutil.copytree(Path(module.__file__).parent, site / "run_store", ignore=shutil.ignore_patterns("__pycache__"))
    (site / "neighbour.py").write_text("x = 1\n")
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: fulgurite\nVersion: 0.1.0\n")
    names = [path.name for path in (site / "run_store").iterdir()]
    (information / "RECORD").write_text("".join(f"run_store/{name},,\n" for name in names) + "../../bin/tool.py,,\n")

    def state() -> str:
        code = "from run_store.code_state import code_state; print(code_state().files_sha256)"
        return subprocess.run(
            [sys.executable, "-c", code],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(site)},
            capture_output=True,
            check=True,
            text=True,
        ).stdout

    before = state()
    (site / "neighbour.py").write_text("x = 2\n")
    assert state() == before
    (site / "run_store" / "errors.py").open("a").write("# changed\n")
    assert state() != before


def test_a_source_that_cannot_be_read_raises_nothing(checkout: Path) -> None:
    before = code_state(checkout)
    (checkout / "loop.py").symlink_to("loop.py")
    (checkout / "socket.py").mkdir()
    assert code_state(checkout) != before
