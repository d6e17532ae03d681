import ast
import gzip
import json

import pytest

from datamodules.text.bad_rows import BadRows
from datamodules.triplets import CodeSearchTriplets, Example, TripletColumns, TripletDataset, TripletFiles
from datamodules.triplets.code_search import described_functions
from run_store import UserError

ROWS = [
    {"q": "first query", "d": "first document", "n": ["one", "two"], "s": 0.5, "t": [0.25, 0.125], "g": 7},
    {"q": "second query", "d": "second document", "n": ["three", "four"], "s": 1, "t": [0, 1], "g": 8},
]
COLUMNS = TripletColumns("q", "d", ["n"], "s", ["t"], "g")
EXPECTED = [
    Example("first query", "first document", ("one", "two"), (0.5, 0.25, 0.125), "7"),
    Example("second query", "second document", ("three", "four"), (1.0, 0.0, 1.0), "8"),
]


def read(source):
    return list(source.examples(BadRows("refuse")))


def without_places(source):
    return [example._replace(place="") for example in read(source)]


def test_json_lines_parquet_and_datasets_give_the_same(tmp_path, monkeypatch):
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    text = "".join(json.dumps(row) + "\n" for row in ROWS)
    with gzip.open(tmp_path / "a.jsonl.gz", "wt") as file:
        file.write(text)
    (tmp_path / "b.jsonl").write_text(text)
    parquet.write_table(arrow.Table.from_pylist(ROWS), tmp_path / "c.parquet")
    for name in ("a.jsonl.gz", "b.jsonl", "c.parquet"):
        source = TripletFiles(str(tmp_path / name), COLUMNS)
        assert without_places(source) == EXPECTED
        assert [example.place for example in read(source)] == [f"{tmp_path / name}:1", f"{tmp_path / name}:2"]
    for streaming in (False, True):
        dataset = TripletDataset("json", columns=COLUMNS, data_files=str(tmp_path / "b.jsonl"), streaming=streaming)
        assert without_places(dataset) == EXPECTED
        assert [example.place for example in read(dataset)] == ["json/0", "json/1"]
        assert (
            dataset.fingerprint()
            == TripletDataset("json", columns=COLUMNS, data_files=str(tmp_path / "b.jsonl")).fingerprint()
        )
    with pytest.raises(UserError, match=r"has no column 'anchor': set `columns\.anchor` to"):
        read(TripletDataset("json", data_files=str(tmp_path / "b.jsonl")))


def test_columns_of_comma_separated_values(tmp_path):
    (tmp_path / "a.csv").write_text("x,y,m1,m2,s\nquery,document,one,two,0.5\n")
    columns = TripletColumns("x", "y", ["m2", "m1"], "s")
    assert without_places(TripletFiles(str(tmp_path / "a.csv"), columns)) == [
        Example("query", "document", ("two", "one"), 0.5)
    ]
    pairs = TripletColumns("x", "y", [])
    assert without_places(TripletFiles(str(tmp_path / "a.csv"), pairs)) == [Example("query", "document")]


def test_a_fingerprint_is_of_contents(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(ROWS[0]))
    before = TripletFiles(str(path), COLUMNS).fingerprint()
    assert before == TripletFiles(f"{tmp_path}/*.jsonl", COLUMNS).fingerprint()
    path.write_text(json.dumps(ROWS[1]))
    assert before != TripletFiles(str(path), COLUMNS).fingerprint()


SOURCE = '''
import os

@decorated(1)
def first(a,
          b):
    r"""Does the first
    of all things.

    And more of it.
    """
    text = """keeps
  this"""
    return text

class Holder:
    async def second(self):
        "Waits for the second thing."
        # a comment
        return await self

def third(): "Shares a line with code."; return 3

def fourth():
    """Says something and does nothing."""

def fifth():
    return 5
'''


def test_functions_lose_their_docstrings_and_nothing_else(tmp_path):
    (tmp_path / "a.py").write_text(SOURCE)
    first, second = described_functions(tmp_path / "a.py")
    assert first.description == "Does the first of all things."
    assert first.source.startswith("def first(a,\n          b):\n    text = ")
    assert SOURCE.splitlines()[first.line - 1] == "def first(a,"
    assert second.source == "async def second(self):\n    # a comment\n    return await self\n"
    (tmp_path / "b.py").write_text("def broken(:\n")
    assert described_functions(tmp_path / "b.py") == []


@pytest.mark.slow
def test_the_standard_library_gives_thousands():
    source = CodeSearchTriplets()
    examples = read(source)
    assert len(examples) > 3000
    assert examples == read(CodeSearchTriplets())
    assert source.fingerprint() == CodeSearchTriplets().fingerprint()
    parsed = 0
    for example in examples[::50]:
        assert example.anchor not in example.positive
        assert len(example.negatives) <= 1
        parsed += ast.get_docstring(ast.parse(example.positive).body[0]) is None
    assert parsed == len(examples[::50])
    assert len({example.group for example in examples}) > 200


def test_another_package_is_mined_without_being_imported():
    examples = read(CodeSearchTriplets(["jsonargparse"], same_module_negative=False))
    assert len(examples) > 20
    assert all(example.negatives == () for example in examples)
    assert all(str(example.group).startswith("jsonargparse/") for example in examples)
    with pytest.raises(UserError, match="packages: no package 'nobody_has_this' with source is installed"):
        read(CodeSearchTriplets(["nobody_has_this"]))
    with pytest.raises(UserError, match=r"no package 'os\.path'"):
        read(CodeSearchTriplets(["os.path"]))


def test_settings_are_plain():
    for source in (CodeSearchTriplets(), TripletFiles("a"), TripletDataset("a", data_files=("x", "y"))):
        assert json.loads(json.dumps(source.describe())) == source.describe()
