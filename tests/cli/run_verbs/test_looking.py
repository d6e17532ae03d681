"""`runs list`, `runs show`, and what goes wrong with them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cli import main
from run_store.run_index import INDEX_NAME


def test_list_has_filters_pages_and_orders(new_run: Any, printed: Any, root: Any) -> None:
    records = [new_run(name="sae" if number else "embedder", model="TopK", k=number) for number in range(5)]
    records[2].label(tags=["good"])
    lines = printed("list", "--limit", "2").splitlines()
    assert lines[0].split() == ["id", "status", "step", "created", "model", "data", "tags", "folder"]
    assert [line.split()[0] for line in lines[1:3]] == [records[4].id[:8], records[3].id[:8]]
    assert lines[-1] == f"1–2 of 5 runs in {root}"
    assert printed("list", "--limit", "2", "--page", "3").splitlines()[-1] == f"5–5 of 5 runs in {root}"
    assert printed("list", "--page", "9") == f"none of 5 runs in {root}\n"
    (tagged,) = json.loads(printed("list", "--tag", "good", "--json"))["runs"]
    assert (tagged["id"], tagged["tags"], tagged["status"]) == (records[2].id, ["good"], "pending")
    oldest = json.loads(printed("list", "--order", "oldest", "--limit", "1", "--json"))
    assert oldest["total"] == 5
    assert oldest["runs"][0]["id"] == records[0].id
    assert json.loads(printed("list", "--model", "Relu", "--json"))["total"] == 0


def test_list_is_strict_json(complete_run: Any, printed: Any) -> None:
    complete_run({"val/fvu": float("nan")})
    (run,) = json.loads(printed("list", "--json"))["runs"]
    assert run["metrics"] == {"val/fvu": None}


def test_list_tells_damaged_runs_and_an_index_that_cannot_be(
    new_run: Any, printed: Any, root: Any, capsys: Any
) -> None:
    record = new_run()
    (record.folder / "metadata.json").write_text("{")
    assert "damaged: " in printed("list").splitlines()[-1]
    (root / INDEX_NAME).unlink()
    (root / INDEX_NAME).mkdir()
    assert main(["runs", "list", "--folder", str(root)]) == 0
    assert capsys.readouterr().err.startswith("warning: every run folder is read, since ")


def test_show_tells_labels_and_the_status_as_of_now(new_run: Any, printed: Any) -> None:
    record = new_run()
    record.begin_attempt()
    record.label(tags=["good", "final"], note="keep")
    told = printed("show", record.id[:10])
    assert "tags           good, final\n" in told
    assert "note           keep\n" in told
    assert "status         interrupted\n" in told
    content = json.loads(printed("show", "sae", "--json"))
    assert content["labels"] == {"tags": ["good", "final"], "note": "keep"}
    assert content["status"] == "interrupted"


@pytest.mark.parametrize(
    "arguments", [["show", "x"], ["update", "x", "--note", "n"], ["delete", "x"], ["pause", "x"], ["resume", "x"],
                  ["watch", "--run", "x"], ["verify", "--runs", "x"], ["compare", "x", "y"]]
)  # fmt: skip
def test_a_missing_run_is_a_sentence(printed: Any, arguments: list[str]) -> None:
    assert "there is no run x in " in printed(*arguments, code=2)
