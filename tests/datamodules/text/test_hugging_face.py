import json
import sys

import pytest

from datamodules.text import HuggingFaceDataset
from run_store import UserError

STREAMED = pytest.mark.parametrize("streaming", [False, True], ids=["kept", "streamed"])


@pytest.fixture
def datasets(tmp_path, monkeypatch):
    """The library, with a cache of its own."""
    library = pytest.importorskip("datasets")
    monkeypatch.setattr(library.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    return library


@pytest.fixture
def folder(tmp_path):
    """A dataset of 600 rows in two files and a split of 3, as a folder of Parquet files."""
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    data = tmp_path / "books" / "data"
    data.mkdir(parents=True)
    rows = [f"row {number}: naïve 数字" for number in range(600)]
    for part, start in enumerate((0, 300)):
        table = arrow.table({"text": rows[start : start + 300], "id": range(300)})
        parquet.write_table(table, data / f"train-{part:05d}-of-00002.parquet")
    parquet.write_table(arrow.table({"text": ["a", " ", "c"], "id": [1, 2, 3]}), data / "test-00000-of-00001.parquet")
    return tmp_path / "books"


def read(name, **settings):
    return [tuple(document) for document in HuggingFaceDataset(str(name), **settings).documents()]


def write_lines(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@STREAMED
def test_a_local_folder_gives_its_rows_in_order_streamed_or_not(datasets, folder, streaming):
    rows = read(folder, streaming=streaming)
    assert rows == [(f"books/{number}", f"row {number}: naïve 数字") for number in range(600)]


@STREAMED
def test_another_split_and_blank_rows(datasets, folder, streaming):
    assert read(folder, split="test", streaming=streaming) == [("books/0", "a"), ("books/2", "c")]


def test_a_slice_of_a_split(datasets, folder):
    assert read(folder, split="train[300:302]")[0] == ("books/0", "row 300: naïve 数字")


@STREAMED
def test_a_builder_reads_files_and_another_column(datasets, tmp_path, streaming):
    files = write_lines(tmp_path / "a.jsonl", {"id": 1, "body": "first"}, {"id": 2, "body": "second"})
    rows = read("json", data_files=files, field="body", streaming=streaming)
    assert rows == [("json/0", "first"), ("json/1", "second")]
    assert rows == read("json", data_files=[files], field="body", streaming=streaming)


@STREAMED
def test_a_single_row_is_a_corpus(datasets, tmp_path, streaming):
    files = write_lines(tmp_path / "a.jsonl", {"text": "only"})
    assert read("json", data_files=files, streaming=streaming) == [("json/0", "only")]


@STREAMED
def test_no_text_is_told(datasets, tmp_path, streaming):
    files = write_lines(tmp_path / "a.jsonl", {"text": ""}, {"text": "  "})
    with pytest.raises(UserError, match=r"the split 'train' of the dataset 'json' \(2 rows\) holds no text"):
        read("json", data_files=files, streaming=streaming)


@STREAMED
def test_a_missing_column_is_told_with_the_nearest(datasets, folder, streaming):
    with pytest.raises(UserError, match=r"books' has no column 'txt': set `field` to text"):
        read(folder, field="txt", streaming=streaming)


@STREAMED
def test_a_missing_split_is_told(datasets, folder, streaming):
    with pytest.raises(UserError, match=r"books' cannot be loaded \(.*validation.*\): check name, config, split"):
        read(folder, split="validation", streaming=streaming)


@STREAMED
def test_an_unknown_dataset_is_told(datasets, tmp_path, streaming):
    with pytest.raises(UserError, match=r"the dataset 'nobody/nothing' \(en\) cannot be loaded .* and the connection"):
        read("nobody/nothing", config="en", streaming=streaming)


@STREAMED
def test_a_row_without_text_is_refused_by_name_or_left_out(datasets, tmp_path, streaming):
    files = write_lines(tmp_path / "a.jsonl", {"text": "a"}, {"text": None}, {"text": "c"})
    with pytest.raises(UserError, match=r"json/1 holds null in the field 'text', not text: .* bad_rows: skip"):
        read("json", data_files=files, streaming=streaming)
    rows = read("json", data_files=files, streaming=streaming, bad_rows="skip")
    assert rows == [("json/0", "a"), ("json/2", "c")]


@STREAMED
def test_a_damaged_file_is_told_in_one_sentence(datasets, tmp_path, streaming):
    (tmp_path / "a.jsonl").write_text('{"text": "a"}\n{"text": cut\n')
    with pytest.raises(UserError, match=r"the dataset 'json' cannot be (loaded|read on) \(.+\): check") as caught:
        read("json", data_files=str(tmp_path / "a.jsonl"), streaming=streaming)
    assert "\n" not in str(caught.value)


def test_a_script_in_a_folder_is_not_run(datasets, tmp_path):
    (tmp_path / "evil").mkdir()
    (tmp_path / "evil" / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    with pytest.raises(UserError, match="cannot be loaded"):
        read(tmp_path / "evil")
    assert not (tmp_path / "ran").exists()


def test_a_missing_library_is_told_in_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UserError, match=r"'wikitext' needs the library datasets: run pip install 'datasets>=4'"):
        read("wikitext")


def test_describes_its_settings_in_json():
    corpus = HuggingFaceDataset("a/b", data_files=("x", "y"), streaming=True)
    settings = corpus.describe()
    assert json.loads(json.dumps(settings)) == settings
    assert settings.keys() == vars(corpus).keys() - {"streaming"} | {"class"}
