import bz2
import csv
import gzip
import json
import lzma
import os
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datamodules.text import TextFiles
from run_store import UserError

ROWS = [f'row {number}: naïve 数字, with "quotes"\nand a second line\t' for number in range(5)]


def read(files, **settings):
    return {document.name: document.text for document in TextFiles(str(files), **settings).documents()}


def write_rows(path, rows=ROWS, field="text"):
    """Writes the format that the suffix names, with libraries of its own."""
    if path.suffix == ".parquet":
        arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
        parquet.write_table(arrow.table({"id": range(len(rows)), field: rows}), path, row_group_size=2)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps({"id": i, field: text}) + "\n" for i, text in enumerate(rows)))
    else:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, delimiter="\t" if path.suffix == ".tsv" else ",")
            writer.writerows([("id", field), *enumerate(rows)])
    return path


def compress(path, suffix):
    """Writes `path` again, compressed, and removes it."""
    pack = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}.get(suffix)
    if pack is None:
        pack = pytest.importorskip("backports.zstd").compress
    target = path.with_name(path.name + suffix)
    # In two parts, one after the other, as parallel compressors write them.
    data = path.read_bytes()
    target.write_bytes(pack(data[: len(data) // 2]) + pack(data[len(data) // 2 :]))
    path.unlink()
    return target


# Which files


def test_names_files_below_the_fixed_folder_in_the_order_of_their_names(tmp_path):
    for name in ["b.txt", "a/z.md", "a/deep/er/c.txt", "B.txt", "a.py"]:
        (tmp_path / "corpus" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "corpus" / name).write_text(f"text of {name}\n")
    assert read(tmp_path / "corpus/**/*.txt") == {
        name: f"text of {name}\n" for name in ["B.txt", "a/deep/er/c.txt", "b.txt"]
    }
    assert list(read(tmp_path / "corpus/**/*.txt")) == ["B.txt", "a/deep/er/c.txt", "b.txt"]
    assert list(read(tmp_path / "corp*/**/c.txt")) == ["corpus/a/deep/er/c.txt"]
    assert list(read(tmp_path / "corpus/a/z.md")) == ["z.md"]


def test_several_patterns_share_a_folder_and_give_no_file_twice(tmp_path):
    for name in ["one/x.txt", "two/x.txt", "two/y.rst"]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    patterns = [str(tmp_path / pattern) for pattern in ("two/*.rst", "one/*.txt", "two/*")]
    for order in (patterns, patterns[::-1]):
        names = [document.name for document in TextFiles(order).documents()]
        assert names == ["one/x.txt", "two/x.txt", "two/y.rst"]


def test_home_and_relative_patterns_give_the_same_names(tmp_path, monkeypatch):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes/today [1].txt").write_text("written")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert read("~/notes/*") == read("notes/*.txt") == read("notes/today [1].txt") == {"today [1].txt": "written"}


def test_a_file_name_that_is_no_text_can_be_written_down(tmp_path):
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.txt")).write_text("text")
    (name,) = read(tmp_path / "*.txt")
    assert name.encode()


# What is in them


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "tsv", "parquet"])
def test_every_row_of_a_file_is_a_document_named_by_its_line(tmp_path, suffix):
    # A value of two lines takes two in separated values, whose header is the first.
    lines = {"jsonl": [1, 2, 3, 4, 5], "parquet": [1, 2, 3, 4, 5]}.get(suffix, [2, 4, 6, 8, 10])
    write_rows(tmp_path / f"rows.{suffix}")
    expected = {f"rows.{suffix}:{line}": text for line, text in zip(lines, ROWS, strict=True)}
    assert read(tmp_path / "*") == expected


@pytest.mark.parametrize("compression", [".gz", ".bz2", ".xz", ".zst"])
@pytest.mark.parametrize("suffix", ["jsonl", "csv", "txt"])
def test_compressed_files_are_read_as_if_they_were_not(tmp_path, suffix, compression):
    plain = tmp_path / f"file.{suffix}"
    plain.write_text("\n".join(ROWS), encoding="utf-8") if suffix == "txt" else write_rows(plain)
    expected = read(plain)
    packed = compress(plain, compression)
    assert list(read(packed).values()) == list(expected.values())
    assert all(name.startswith(f"file.{suffix}{compression}") for name in read(packed))


def test_a_field_may_name_the_rows(tmp_path):
    write_rows(tmp_path / "a.jsonl", field="body")
    assert read(tmp_path / "a.jsonl", field="body", name_field="id") == {str(i): text for i, text in enumerate(ROWS)}


def test_two_rows_of_one_name_are_told(tmp_path):
    write_rows(tmp_path / "a.jsonl")
    write_rows(tmp_path / "b.jsonl")
    with pytest.raises(UserError, match=r"b\.jsonl:1 is named '0' like another document: set name_field"):
        read(tmp_path / "*", name_field="id")


def test_the_format_can_be_named_when_the_suffix_does_not_tell_it(tmp_path):
    write_rows(tmp_path / "rows.jsonl").rename(tmp_path / "rows.log")
    assert list(read(tmp_path / "rows.log", format="jsonl").values()) == ROWS
    (tmp_path / "data.json").write_text('["not", "rows"]')
    assert read(tmp_path / "data.json", format="text") == {"data.json": '["not", "rows"]'}


def test_text_files_by_line_and_by_paragraph(tmp_path):
    (tmp_path / "a.txt").write_text("\n one\ntwo\n\n \nthree\r\nfour")
    assert read(tmp_path / "a.txt", sample_by="line") == {
        "a.txt:2": " one",
        "a.txt:3": "two",
        "a.txt:6": "three",
        "a.txt:7": "four",
    }
    assert read(tmp_path / "a.txt", sample_by="paragraph") == {"a.txt:2": " one\ntwo", "a.txt:6": "three\nfour"}


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16", "utf-8-sig", "cp1252"])
@pytest.mark.parametrize("suffix", ["txt", "jsonl", "csv"])
def test_reads_the_encoding_it_is_told(tmp_path, suffix, encoding):
    content = {"txt": "Löwis", "jsonl": '{"text": "Löwis"}\n', "csv": "text\nLöwis\n"}[suffix]
    (tmp_path / f"a.{suffix}").write_bytes(content.encode(encoding))
    assert list(read(tmp_path / "*", encoding=encoding).values()) == ["Löwis"]


def test_a_byte_order_mark_is_no_text(tmp_path):
    (tmp_path / "a.txt").write_bytes("text".encode("utf-8-sig"))
    (tmp_path / "b.csv").write_bytes("text\nrow\n".encode("utf-8-sig"))
    assert list(read(tmp_path / "*").values()) == ["text", "row"]


@given(rows=st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20), max_size=8))
@pytest.mark.parametrize("suffix", ["jsonl", "csv", "tsv", "parquet"])
def test_rows_come_back_as_they_were_written(tmp_path_factory, suffix, rows):
    path = write_rows(tmp_path_factory.mktemp("rows") / f"a.{suffix}", rows)
    expected = [text for text in rows if text.strip()]
    if expected:
        assert list(read(path).values()) == expected
    else:
        with pytest.raises(UserError, match="hold no text"):
            read(path)


# The edges: little, and much


@pytest.mark.parametrize("suffix", ["txt", "jsonl", "csv", "tsv", "parquet"])
def test_a_single_row_is_a_corpus(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    path.write_text("only") if suffix == "txt" else write_rows(path, ["only"])
    assert list(read(path).values()) == ["only"]


@pytest.mark.parametrize("suffix", ["txt", "jsonl", "csv", "tsv", "parquet", "txt.gz"])
def test_empty_files_give_nothing_beside_others_and_are_told_when_alone(tmp_path, suffix):
    write_rows(tmp_path / f"a.{suffix}", []) if suffix == "parquet" else (tmp_path / f"a.{suffix}").touch()
    with pytest.raises(UserError, match=rf"the files of .*a\.{suffix} \(1\) hold no text: check `files`"):
        read(tmp_path / f"a.{suffix}")
    (tmp_path / "b.txt").write_text("more")
    assert read(tmp_path / "*") == {"b.txt": "more"}


@pytest.mark.first_is_fast
@pytest.mark.parametrize("suffix", ["jsonl", "csv", "jsonl.gz"])
def test_rows_are_streamed_in_memory_that_ten_times_the_file_does_not_raise(tmp_path, suffix):
    def peak(rows):
        path = write_rows(tmp_path / f"{rows}.{suffix.removesuffix('.gz')}", ["x" * 1000] * rows)
        path = compress(path, ".gz") if suffix.endswith(".gz") else path
        tracemalloc.start()
        assert sum(1 for _ in TextFiles(str(path)).documents()) == rows
        highest = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return highest

    peak(10)
    # the least of a few: threads that earlier tests have left behind allocate now and then
    assert min(peak(4000) for _ in range(3)) < min(peak(400) for _ in range(3)) + 50_000 < 400_000


def test_parquet_is_streamed_by_row_group(tmp_path):
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    texts = [f"{number} " * 1000 for number in range(4000)]
    table = arrow.table({"text": texts, "other": texts})
    parquet.write_table(table, tmp_path / "a.parquet", row_group_size=200, compression="none")
    bytes_of_a_group = table.nbytes // 2 // 20
    del table
    before = arrow.total_allocated_bytes()
    highest = max(arrow.total_allocated_bytes() - before for _ in TextFiles(str(tmp_path / "a.parquet")).documents())
    assert highest < 4 * bytes_of_a_group


def test_describes_its_settings_in_json():
    corpus = TextFiles("a/*.csv", field="body", sample_by="line", bad_rows="skip")
    settings = corpus.describe()
    assert json.loads(json.dumps(settings)) == settings
    assert settings.keys() - {"class"} == vars(corpus).keys()
    assert settings["files"] == TextFiles(["a/*.csv"]).describe()["files"] == ["a/*.csv"]
