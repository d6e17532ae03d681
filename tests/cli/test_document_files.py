"""Documents of triplets; those of files are asked for through the verb (test_explain.py)."""

import json

import pytest
import yaml

from cli.document_files import read_documents
from run_store import UserError


@pytest.fixture
def triplets(tmp_path):
    rows = [
        {"anchor": f"query {number}", "positive": f"text {number}", "negative": f"text {number // 2}0"}
        for number in range(1, 40)
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    columns = {"anchor": "anchor", "positive": "positive", "negatives": ["negative"]}
    source = {"class_path": "TripletFiles", "init_args": {"files": str(tmp_path / "rows.jsonl"), "columns": columns}}
    settings = {"source": source, "batch_size": 4, "validation_share": 0.2, "test_share": 0.3}
    config = tmp_path / "triplets.yaml"
    config.write_text(yaml.safe_dump({"class_path": "TripletDataModule", "init_args": settings}))
    return rows, str(config)


def test_the_splits_of_triplets_make_up_their_documents_each_once(triplets):
    rows, config = triplets
    everything = set()
    for split in ("train", "validation", "test"):
        texts = [document.text for document in read_documents([], triplets=config, split=split)]
        assert len(set(texts)) == len(texts) > 2
        everything |= set(texts)
    assert everything == {row[name] for row in rows for name in ("positive", "negative")}


def test_documents_of_triplets_come_last_and_say_which_example_they_are_of(triplets):
    rows, config = triplets
    own, *others = read_documents([], ["mine"], config)
    assert own.text == "mine"
    for document in others:
        number = int(document.source.rpartition("/")[2])
        assert document.text in rows[number].values()


def test_settings_of_something_else_are_told(tmp_path):
    (tmp_path / "other.yaml").write_text("class_path: TextContexts\n")
    with pytest.raises(UserError, match=r"triplets .*other\.yaml: "):
        read_documents([], triplets=str(tmp_path / "other.yaml"))
