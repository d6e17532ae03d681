from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from run_store.selection import Candidate, Criterion, Selection
from run_store.selection_cache import cached_best, latest

CHECKOUT = Path(__file__).resolve().parents[2]
FVU = Criterion({"val/fvu": 1.0})
CANDIDATES = [Candidate("a", "1", 1, {"val/fvu": 0.3}), Candidate("b", "2", 2, {"val/fvu": 0.1})]


def selections(folder: Path) -> list[Path]:
    return sorted(folder.glob("selection-*.json"))


def pretend(path: Path, best: str) -> None:
    """Rewrites a selection, so that an answer from the cache can be told from one that was worked out."""
    content = json.loads(path.read_text())
    content["selection"]["best"] = best
    path.write_text(json.dumps(content))


def test_the_same_question_is_answered_from_the_cache(tmp_path: Path) -> None:
    first = cached_best(tmp_path / "cache", CANDIDATES, FVU)
    assert first == Selection("b", 0.1, {"a": "scores 0.3"})
    (stored,) = selections(tmp_path / "cache")
    pretend(stored, "remembered")
    assert cached_best(tmp_path / "cache", reversed(CANDIDATES), FVU).best == "remembered"
    assert selections(tmp_path / "cache") == [stored]


def test_another_criterion_or_other_candidates_are_another_question(tmp_path: Path) -> None:
    cached_best(tmp_path, CANDIDATES, FVU)
    assert cached_best(tmp_path, CANDIDATES, Criterion({"val/fvu": 1.0}, "max")).best == "a"
    better = Candidate("c", "3", 3, {"val/fvu": 0.05})
    assert cached_best(tmp_path, [*CANDIDATES, better], FVU).best == "c"
    assert len(selections(tmp_path)) == 3
    index = json.loads((tmp_path / "index.json").read_text())
    assert sorted(index.values()) == [path.name for path in selections(tmp_path)]
    assert json.loads((tmp_path / "latest.json").read_text())["selection"]["best"] == "c"
    found = latest(tmp_path)
    assert found is not None
    assert found.best == "c"


@pytest.mark.parametrize("content", ["", "{", "[]", '{"x": "y"}'])
@pytest.mark.parametrize("name", ["index.json", "latest.json"])
def test_damaged_summaries_are_made_good_from_the_selections(tmp_path: Path, name: str, content: str) -> None:
    cached_best(tmp_path, CANDIDATES, FVU)
    pretend(selections(tmp_path)[0], "remembered")
    (tmp_path / name).write_text(content)
    assert cached_best(tmp_path, CANDIDATES, FVU).best == "remembered"
    found = latest(tmp_path)
    assert found is not None
    assert found.best == "remembered"


@pytest.mark.parametrize(
    "content", ["", '{"question": 1, "selection": {"best": "b", "score": 0, "rejected": {}}}', "[]"]
)
def test_a_damaged_selection_is_worked_out_again(tmp_path: Path, content: str) -> None:
    cached_best(tmp_path, CANDIDATES, FVU)
    selections(tmp_path)[0].write_text(content)
    assert latest(tmp_path) is None
    assert cached_best(tmp_path, CANDIDATES, FVU).best == "b"
    found = latest(tmp_path)
    assert found is not None
    assert found.best == "b"


@pytest.mark.parametrize("before", ["index.json", "latest.json"])
def test_a_kill_between_the_writes_loses_nothing(tmp_path: Path, before: str) -> None:
    cached_best(tmp_path, CANDIDATES[:1], FVU)
    code = f"""
import os, signal, sys
from pathlib import Path
from run_store import selection_cache
from run_store.atomic import write_json
from run_store.selection import Candidate, Criterion

def killed_before(path, content):
    if path.name == {before!r}:
        os.kill(os.getpid(), signal.SIGKILL)
    write_json(path, content)

selection_cache.write_json = killed_before
candidates = [Candidate("a", "1", 1, {{"val/fvu": 0.3}}), Candidate("b", "2", 2, {{"val/fvu": 0.1}})]
selection_cache.cached_best(sys.argv[1], candidates, Criterion({{"val/fvu": 1.0}}))
"""
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=CHECKOUT).returncode < 0
    assert len(selections(tmp_path)) == 2
    found = latest(tmp_path)
    assert found is not None
    assert found.best == "b"
    pretend(selections(tmp_path)[1], "remembered")
    assert cached_best(tmp_path, CANDIDATES, FVU).best == "remembered"


def test_an_empty_folder_remembers_nothing(tmp_path: Path) -> None:
    assert latest(tmp_path / "missing") is None
