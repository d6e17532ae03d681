"""Rows that cannot be trained on are told with file and line, or left out and counted."""

import json
import logging

import pytest

from datamodules.text.bad_rows import BadRows
from datamodules.triplets import TripletColumns, TripletFiles
from datamodules.triplets.source import Example, fault_of
from run_store import UserError

GOOD = b'{"anchor": "a", "positive": "p", "negative": "n", "score": 1, "scores": [0.5]}\n'
SCORED = TripletColumns(score="score")
TAUGHT = TripletColumns(score="score", negative_scores=["scores"])
USUAL = TripletColumns()


def line(**changes):
    return json.dumps({**json.loads(GOOD), **changes}).encode() + b"\n"


def without(field):
    return json.dumps({name: value for name, value in json.loads(GOOD).items() if name != field}).encode() + b"\n"


FAULTS = {
    "missing field": (without("negative"), USUAL, r"has no field 'negative' \(it has"),
    "empty anchor": (line(anchor=" \n"), USUAL, "has an empty anchor"),
    "empty negative": (line(negative=""), USUAL, "has an empty negative"),
    "a number for a text": (line(positive=3), USUAL, "holds int in the field 'positive', not text"),
    "a null": (line(anchor=None), USUAL, "holds null in the field 'anchor', not text"),
    "a number among negatives": (line(negative=["n", 3]), USUAL, "holds int in the field 'negative', not text"),
    "anchor equal to positive": (line(positive="a "), USUAL, "has an anchor equal to its positive"),
    "negative equal to positive": (line(negative="p"), USUAL, "has a negative equal to its positive"),
    "negative equal to anchor": (line(negative=["n", "a"]), USUAL, "has a negative equal to its anchor"),
    "a negative twice": (line(negative=["n", "n"]), USUAL, "has the same negative twice"),
    "broken JSON": (b'{"anchor": "cut\n', USUAL, "is not valid JSON"),
    "no object": (b'["a", "p"]\n', USUAL, "is no JSON object but holds list"),
    "Latin-1": (line(anchor="X").replace(b"X", b"na\xefve"), USUAL, r"is not utf-8 \(byte 0xEF\)"),
    "half of a pair": (line(anchor="\ud800"), USUAL, "holds half of a surrogate pair"),
    "a text for a score": (line(score="high"), SCORED, "holds 'high' in the field 'score', not a number"),
    "no score": (line(score=None), SCORED, "holds null in the field 'score', not a number"),
    "true for a score": (line(score=True), SCORED, "holds bool in the field 'score', not a number"),
    "a score without end": (line(score=1e999), SCORED, "has the score inf, which is no finite number"),
    "too many scores": (line(scores=[1, 2]), TAUGHT, "has 1 negative and scores for 2"),
    "a group of another kind": (line(score=[1]), TripletColumns(group="score"), "holds list in the field 'score'"),
}


def read(path, action="refuse", columns=USUAL, **settings):
    bad = BadRows(action, of="triplets")
    examples = list(TripletFiles(str(path), columns, bad_rows=action, **settings).examples(bad))
    bad.tell()
    return examples


@pytest.mark.parametrize(("content", "columns", "fault"), FAULTS.values(), ids=FAULTS)
def test_a_bad_row_is_refused_by_file_and_line_or_left_out(tmp_path, caplog, content, columns, fault):
    path = tmp_path / "a.jsonl"
    other = line(anchor="b", score=[2]) if columns.group else line(anchor="b")
    good = GOOD if columns.group is None else line(score=7)
    path.write_bytes(good + content + (other if columns.group is None else good))
    with pytest.raises(UserError, match=rf"^{path}:2 {fault}.*bad_rows: skip") as caught:
        read(path, columns=columns)
    assert "\n" not in str(caught.value)
    with caplog.at_level(logging.INFO):
        assert len(read(path, "skip", columns)) == 2
    assert f"Left out 1 bad row of triplets; the first: {path}:2 " in caplog.text


def test_rows_of_another_width_are_told(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text('anchor,positive,negative\na,p,n\n"two\nlines",p\na,p,n,n\n')
    with pytest.raises(UserError, match=r"a\.csv:3 has 2 columns where the header has 3"):
        read(path)
    assert len(read(path, "skip")) == 1


def test_a_missing_column_is_told_with_its_setting(tmp_path):
    path = tmp_path / "a.tsv"
    path.write_text("anchor\tpositive\tnegatives\na\tp\tn\n")
    with pytest.raises(UserError, match=r"a\.tsv:1 has no column 'negative': set `columns.negatives` to negatives"):
        read(path)


@pytest.mark.parametrize(
    ("name", "content"), [("a.jsonl", b""), ("a.csv", b""), ("a.csv", b"anchor,positive,negative\n")]
)
def test_a_file_without_rows_is_told(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    (tmp_path / "b.jsonl").write_bytes(GOOD)
    with pytest.raises(UserError, match=rf"{name}:1 begins a file without rows"):
        read(tmp_path / "*")
    assert len(read(tmp_path / "*", "skip")) == 1
    with pytest.raises(UserError, match="TripletFiles gives no example"):
        read(tmp_path / name, "skip")


def test_a_file_of_something_else_is_told(tmp_path):
    (tmp_path / "a.txt").write_bytes(GOOD)
    with pytest.raises(UserError, match=r"a\.txt has no suffix of a file of rows: set `format`"):
        read(tmp_path / "a.txt")
    assert len(read(tmp_path / "a.txt", format="jsonl")) == 1


@pytest.mark.parametrize(
    ("columns", "fault"),
    [
        (TripletColumns(positive="anchor"), "columns.anchor and columns.positive both name the column 'anchor'"),
        (TripletColumns(negative_scores=["s"]), "columns.negative_scores needs columns.score"),
        (TripletColumns(score="s", negative_scores=["a", "b"]), r"as many names as columns.negatives has \(1\)"),
    ],
)
def test_columns_that_make_no_sense_are_told(tmp_path, columns, fault):
    (tmp_path / "a.jsonl").write_bytes(GOOD)
    with pytest.raises(UserError, match=fault):
        read(tmp_path / "a.jsonl", columns=columns)


def test_scores_are_of_one_kind():
    assert fault_of(Example("a", "p", ("n",), (1.0, 2.0))) is None
    assert fault_of(Example("a", "p", (), (1.0,))) is None
    assert "negatives and scores for" in str(fault_of(Example("a", "p", ("n", "m"), (1.0, 2.0))))
    assert "no finite number" in str(fault_of(Example("a", "p", (), float("nan"))))
