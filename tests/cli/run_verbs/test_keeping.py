"""`runs update`, `runs verify` and `runs reindex`."""

from __future__ import annotations

import json
import shutil
from typing import Any

from run_store.checkpoints import new_checkpoint
from run_store.completion import describe_outputs
from run_store.locks import RunLock
from run_store.record import Progress, read_record


def test_update_labels_a_run_that_a_process_works_on(new_run: Any, printed: Any) -> None:
    record = new_run()
    record.begin_attempt()
    with RunLock(record.folder):
        told = printed("update", "sae", "--tags", "good", "good", "größer", "--note", "keep this")
        assert told == f"{record.folder} has the tags good, größer and the note 'keep this'\n"
        record.move_to("running")  # the training knows nothing of it, and takes nothing back
        record.report(Progress(5))
    assert read_record(record.folder).labels.tags == ("good", "größer")
    assert json.loads(printed("list", "--tag", "größer", "--json"))["runs"][0]["step"] == 5
    printed("update", "sae", "--note", "another")
    assert read_record(record.folder).labels.tags == ("good", "größer")
    printed("update", "sae", "--tags", "[]")
    labels = read_record(record.folder).labels
    assert (labels.tags, labels.note) == ((), "another")
    assert [event["tags"] for event in record.history() if event["event"] == "labels"] == [
        ["good", "größer"],
        ["good", "größer"],
        [],
    ]


def test_update_refuses_what_is_no_tag(new_run: Any, printed: Any) -> None:
    new_run()
    assert "tags has '': a tag is one line" in printed("update", "sae", "--tags", "good", "", code=2)
    assert "say what to update" in printed("update", "sae", code=2)


def test_verify_reads_outputs_and_checkpoints(new_run: Any, printed: Any) -> None:
    record, running = new_run(), new_run(k=2)
    for run in (record, running):
        run.begin_attempt()
        run.move_to("running")
        for step in (1, 2):
            with new_checkpoint(run.folder / "checkpoints" / f"step-{step:08d}", step, 0) as folder:
                (folder / "weights").write_text("weights")
    newest = record.folder / "checkpoints" / "step-00000002"
    (record.folder / "metrics.json").write_text("{}\n")
    names = ["metrics.json", *(str(path.relative_to(record.folder)) for path in newest.iterdir())]
    record.complete(describe_outputs(record.folder, names))
    assert printed("verify") == "2 runs verified, none of them damaged\n"
    for path in (newest, running.folder / "checkpoints" / "step-00000001"):
        (path / "weights").write_text("weighty")
    told = printed("verify", code=1)
    assert f"{record.folder} is not complete: checkpoints/step-00000002/weights is not the file" in told
    assert f"{newest} is damaged: weights differs from what was saved" in told
    assert f"{running.folder}/checkpoints/step-00000001 is damaged" in told
    assert told.endswith("2 runs verified, 2 of them damaged\n")
    assert printed("verify", "--runs", running.id, code=1).endswith("1 runs verified, 1 of them damaged\n")
    (running.folder / "metadata.json").write_text("{")
    problems = json.loads(printed("verify", "--json", code=1))["problems"]
    assert problems.keys() == {str(record.folder), str(running.folder)}


def test_reindex_finds_what_was_copied_beside_others(new_run: Any, printed: Any, root: Any) -> None:
    record = new_run()
    printed("list")
    shutil.copytree(record.folder, record.folder.with_name("v2"))
    (record.folder.with_name("v3")).mkdir()
    lines = printed("reindex").splitlines()
    assert lines[0] == f"2 runs in {root}"
    assert lines[1].startswith("damaged: ")
    assert printed("list").splitlines()[-2].startswith("1–2 of 2 runs")
