"""`python main.py predictions`: list, epochs, compare, export, delete."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cli import main
from run_store.predictions import PredictionStore, RunEntry, store_path
from tests.run_store.predictions.records import entry, prediction

CHECKOUT = Path(__file__).resolve().parents[2]
Printed = Callable[..., str]


def retrieved(sample: int, step: int, run: str, user: str) -> Any:
    content = {
        "kind": "retrieval",
        "of": 9,
        "rank": step // 10,
        "retrieved": [{"text": f"body {step}\nof {sample}", "score": 1 / step, "relevant": True}],
    }
    return prediction(sample, step, run, user_id=user, prediction=content, scores={"rank": step // 10})


RUNS: dict[str, RunEntry] = {
    "a1a1a1a1a1": entry("a1a1a1a1a1", name="first", user_id="ann"),
    "b2b2b2b2b2": entry("b2b2b2b2b2", name="second", user_id="bob"),
}


@pytest.fixture(autouse=True)
def nobodys_job(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("JOB_ID", "JOB_USER_ID"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two runs of two users, with three samples in each of the epochs 1, 2 and 3."""
    with PredictionStore(store_path(tmp_path / "runs")) as store:
        for run, known in RUNS.items():
            store.register(known)
            user = known.user_id or ""
            store.write([retrieved(sample, step, run, user) for step in (10, 20, 30) for sample in range(3)])
    return tmp_path / "runs"


@pytest.fixture
def printed(folder: Path, capsys: pytest.CaptureFixture[str]) -> Printed:
    def call(*arguments: str, code: int = 0) -> str:
        assert main(["predictions", *arguments, "--folder", str(folder)]) == code
        output = capsys.readouterr()
        if code:
            (line,) = output.err.splitlines()
            return line
        return output.out

    return call


def test_list_has_pages(printed: Printed) -> None:
    lines = printed("list", "--limit", "7", "--page", "3").splitlines()
    assert lines[-1].startswith("15–18 of 18 predictions in ")
    assert lines[0].split() == ["run", "epoch", "step", "sample", "rank", "prompt", "prediction"]
    assert len(lines) == 6
    assert printed("list", "--page", "9").startswith("none of 18 predictions")
    assert len(json.loads(printed("list", "--limit", "0", "--json"))["predictions"]) == 18


@pytest.mark.parametrize(
    ("filters", "total"),
    [
        (["--run", "first"], 9),
        (["--run", "b2b2"], 9),
        (["--run", RUNS["a1a1a1a1a1"].folder], 9),
        (["--epoch", "2"], 6),
        (["--sample", "0", "--run", "first"], 3),
        (["--user", "bob", "--epoch", "1"], 3),
        (["--member", ""], 18),
        (["--member", "k16"], 0),
        (["--user", "eve"], 0),
    ],
)
def test_list_filters(printed: Printed, tmp_path: Path, filters: list[str], total: int) -> None:
    content = json.loads(printed("list", "--json", *filters))
    assert content["total"] == len(content["predictions"]) == total
    export = tmp_path / "found.jsonl"
    assert printed("export", str(export), *filters) == f"wrote {total} predictions to {export}\n"
    assert [json.loads(line) for line in export.read_text().splitlines()] == content["predictions"]


def test_what_is_printed_obeys_no_data(printed: Printed, folder: Path) -> None:
    with PredictionStore(store_path(folder)) as store:
        store.write([prediction(0, 40, "a1a1a1a1a1", prompt="\x1b[2J\nnext", prediction={"text": "\x07"})])
    for verb in (["list", "--epoch", "4"], ["compare", "first", "--epochs", "1", "4"]):
        text = printed(*verb)
        assert r"\x1b[2J⏎next" in text
        assert r"\x07" in text
        assert "\x1b" not in text


def test_epochs_sums_up(printed: Printed) -> None:
    lines = printed("epochs", "first").splitlines()
    assert lines[0].startswith("first (a1a1a1a1)")
    assert [line.split() for line in lines[1:]] == [
        ["epoch", "steps", "records", "rank"],
        ["1", "10–10", "3", "1"],
        ["2", "20–20", "3", "2"],
        ["3", "30–30", "3", "3"],
    ]
    content = json.loads(printed("epochs", "first", "--json"))
    assert content["run"]["run_id"] == "a1a1a1a1a1"
    assert [epoch["scores"] for epoch in content["epochs"]] == [{"rank": 1.0}, {"rank": 2.0}, {"rank": 3.0}]


def test_compare_puts_two_epochs_side_by_side(printed: Printed) -> None:
    lines = printed("compare", "first", "--epochs", "1", "3").splitlines()
    assert lines[0] == "sample 0: prompt 0"
    assert lines[1].split() == ["first", "(a1a1a1a1),", "epoch", "1", "first", "(a1a1a1a1),", "epoch", "3"]
    assert lines[2].split() == ["*", "rank", "1", "3"]
    assert re.split(" {2,}", lines[3]) == ["* retrieved 1", "0.100 ✓ body 10⏎of 0", "0.033 ✓ body 30⏎of 0"]
    assert lines[-1].startswith("3 samples, 3 changed")
    assert printed("compare", "first").splitlines() == lines, "the first and the last epoch by default"


def test_compare_puts_two_runs_side_by_side(printed: Printed) -> None:
    assert printed("compare", "first", "--other", "second").splitlines()[-1].startswith("3 samples, 0 changed")
    content = json.loads(printed("compare", "first", "--other", "second", "--epochs", "2", "1", "--json"))
    assert (content["left"]["epoch"], content["right"]["epoch"]) == (2, 1)
    sample = content["samples"][0]
    assert (sample["left"]["run_id"], sample["right"]["run_id"]) == ("a1a1a1a1a1", "b2b2b2b2b2")
    assert sample["changed"] == ["rank", "retrieved 1"]
    content = json.loads(printed("compare", "first", "--other", "second", "--epochs", "2", "--json"))
    assert [sample["changed"] for sample in content["samples"]] == [[], [], []]


def test_compare_puts_two_members_side_by_side(printed: Printed, folder: Path) -> None:
    with PredictionStore(store_path(folder)) as store:
        store.register(entry("c3"))
        found = {"k16": "few", "k32": "many"}
        store.write([prediction(0, 10, "c3", member=name, prediction={"text": text}) for name, text in found.items()])
    content = json.loads(printed("compare", "c3", "--members", "k16", "k32", "--json"))
    (sample,) = content["samples"]
    assert sample["changed"] == ["prediction.text"]
    assert "both sides are epoch 1" in printed("compare", "c3", code=2)
    assert "no predictions of the member k64" in printed("compare", "c3", "--members", "k16", "k64", code=2)


def test_export_to_csv_has_a_column_a_score(printed: Printed, folder: Path, tmp_path: Path) -> None:
    with PredictionStore(store_path(folder)) as store:
        store.write([prediction(0, 40, "a1a1a1a1a1", prompt='=a,"b"\n', scores={"margin": float("nan")})])
    path = tmp_path / "found"
    printed("export", str(path), "--format", "csv", "--run", "first")
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 10
    assert (rows[0]["score.rank"], rows[0]["score.margin"], rows[-1]["score.margin"]) == ("1.0", "", "")
    assert rows[-1]["prompt"] == '=a,"b"\n'
    assert json.loads(rows[0]["prediction"])["kind"] == "retrieval"


def test_export_wants_a_kind_of_file_and_keeps_the_old_one(printed: Printed, folder: Path, tmp_path: Path) -> None:
    assert "ends neither in .jsonl nor in .csv" in printed("export", str(tmp_path / "found.txt"), code=2)
    old = tmp_path / "old.jsonl"
    old.write_text("old")
    assert "no predictions of a run zz" in printed("export", str(old), "--run", "zz", code=2)
    assert old.read_text() == "old"
    assert "cannot be written" in printed("export", str(tmp_path / "nowhere" / "a.csv"), code=2)


def test_delete_asks_or_is_told_yes(
    printed: Printed, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "delete 9 predictions of the run" in printed("delete", "--run", "first", code=2)
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda question: "")
    assert printed("delete", "--run", "first") == "nothing is deleted\n"
    monkeypatch.setattr("builtins.input", lambda question: "y")
    assert printed("delete", "--run", "first").startswith("deleted 9 predictions of the run sae/spec")
    assert "no predictions of a run first" in printed("delete", "--run", "first", "--yes", code=2)
    assert printed("delete", "--user", "bob", "--yes") == "deleted 9 predictions of the user bob\n"
    assert "nothing of a user bob" in printed("delete", "--user", "bob", "--yes", code=2)
    assert printed("list").startswith("none of 0")


def test_where_a_user_is_set_nobody_elses_records_are_seen(printed: Printed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOB_USER_ID", "ann")
    assert json.loads(printed("list", "--json"))["total"] == 9
    assert "no predictions of a run second" in printed("epochs", "second", code=2)
    assert "no predictions of a run second" in printed("compare", "first", "--other", "second", code=2)
    for verb in (["list"], ["epochs", "first"], ["delete", "--yes"]):
        assert "user bob is not JOB_USER_ID, which is ann" in printed(*verb, "--user", "bob", code=2)
    assert "no predictions of a run second" in printed("delete", "--run", "second", "--yes", code=2)
    assert printed("delete", "--run", "first", "--yes").startswith("deleted 9")
    monkeypatch.setenv("JOB_USER_ID", "")
    assert json.loads(printed("list", "--json"))["total"] == 9


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["lst"], "no verb predictions 'lst': the nearest are list"),
        (["list", "--run", "zz"], "there are no predictions of a run zz"),
        (["list", "--epcoh", "1"], "no setting epcoh: the nearest are epoch"),
        (["epochs"], "RUN is missing"),
        (["compare", "first", "--epochs", "1", "7"], "in epoch 7: the epochs are 1, 2, 3"),
        (["compare", "first", "--epochs", "1", "2", "3"], "epochs has 3 values"),
        (["compare", "first", "--epochs", "one"], "epochs must be of type NonNegativeInt, not 'one'"),
        (["compare", "first", "--epochs", "2"], "both sides are epoch 2 of the run first"),
        (["delete"], "--run RUN or --user USER"),
        (["delete", "--run", "first", "--user", "ann"], "--run RUN or --user USER"),
    ],
)
def test_a_mistake_is_one_line(printed: Printed, arguments: list[str], expected: str) -> None:
    assert expected in printed(*arguments, code=2)


@pytest.mark.parametrize("verb", [["list"], ["epochs", "a"], ["delete", "--run", "a"], ["export", "a.csv"]])
def test_without_a_store_no_file_is_made(
    verb: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["predictions", *verb]) == 2
    assert "there are no predictions, since there is no file runs/predictions.sqlite" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_verbs_do_not_pay_for_torch(folder: Path) -> None:
    code = (
        "import sys\nfrom cli import main\n"
        "for verb in (['list'], ['epochs', 'first'], ['compare', 'first'], ['export', sys.argv[1] + '/a.csv']):\n"
        "    assert main(['predictions', *verb, '--folder', sys.argv[1]]) == 0\n"
        "assert not {'torch', 'lightning', 'numpy'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code, folder], check=True, cwd=CHECKOUT, stdout=subprocess.DEVNULL)


def test_the_page_is_written_of_the_runs_that_were_asked_for(printed: Printed, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    assert printed("report", "--out", str(page)) == f"wrote {page}\n"
    assert all(run in page.read_text() for run in RUNS)
    printed("report", "--out", str(page), "--runs", "first")
    assert "a1a1a1a1a1" in page.read_text()
    assert "b2b2b2b2b2" not in page.read_text()
    assert "--out" in printed("report", code=2)
