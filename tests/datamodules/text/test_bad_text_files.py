"""What cannot be read is told with file and line, or left out and counted."""

import gzip
import logging
import lzma
import os
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datamodules.text import TextFiles
from run_store import UserError


def read(files, **settings):
    return {document.name: document.text for document in TextFiles(str(files), **settings).documents()}


GOOD_JSON = b'{"text": "good"}\n'
FAULTS = {
    "invalid JSON": ("a.jsonl", GOOD_JSON + b'{"text": "cut\n' + GOOD_JSON, 2, "is not valid JSON .*character"),
    "not an object": ("a.jsonl", b'["text"]\n' + GOOD_JSON, 1, "is no JSON object but holds list"),
    "deep JSON": ("a.jsonl", GOOD_JSON + b"[" * 200_000 + b"\n", 2, "cannot be read as JSON"),
    "long number": (
        "a.jsonl",
        GOOD_JSON + b'{"text": ' + b"1" * 5000 + b"}\n",
        2,
        "(cannot be read as JSON|holds int)",
    ),
    "missing field": ("a.jsonl", GOOD_JSON + b'\n{"txt": "x"}\n', 3, r"has no field 'text' \(it has txt\)"),
    "no fields": ("a.jsonl", GOOD_JSON + b"{}\n", 2, r"has no field 'text' \(it has none\)"),
    "a number": ("a.jsonl", GOOD_JSON + b'{"text": 3}\n', 2, "holds int in the field 'text', not text"),
    "a null": ("a.jsonl", GOOD_JSON + b'{"text": null}\n', 2, "holds null in the field 'text', not text"),
    "half a pair": ("a.jsonl", GOOD_JSON + b'{"text": "\\ud83d"}\n', 2, "holds half of a surrogate pair"),
    "JSON in Latin-1": ("a.jsonl", GOOD_JSON * 900 + b'{"text": "na\xefve"}\n', 901, r"is not utf-8 \(byte 0xEF\)"),
    "CSV in Latin-1": (
        "a.csv",
        b'text,id\ngood,1\n"two\nlines na\xefve",2\ngood,3\n',
        4,
        r"is not utf-8 \(byte 0xEF\)",
    ),
    "short row": ("a.csv", b"text,id\ngood,1\n\nbad\ngood,2\n", 4, "has 1 columns where the header has 2"),
    "long row": ("a.tsv", b"text\tid\ngood\t1\nbad\tbad\t2\n", 3, "has 3 columns where the header has 2"),
    "open quote": ("a.csv", b'text\ngood\n"never closed\nmore\n', 3, "begins a row that cannot be read"),
    "a letter after a quote": ("a.csv", b'text\ngood\n"a"b\ngood\n', 3, "begins a row that cannot be read"),
}


@pytest.mark.parametrize(("name", "content", "line", "fault"), FAULTS.values(), ids=FAULTS)
def test_a_bad_row_is_refused_by_file_and_line_or_left_out(tmp_path, caplog, name, content, line, fault):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=rf"^{tmp_path / name}:{line} {fault}.*bad_rows: skip"):
        read(tmp_path / name)
    with caplog.at_level(logging.INFO):
        kept = read(tmp_path / name, bad_rows="skip")
    assert set(kept.values()) == {"good"}
    assert f"Left out 1 bad row of text; the first: {tmp_path / name}:{line} " in caplog.text


def test_bad_rows_leave_the_names_of_the_others_as_they_are(tmp_path, caplog):
    (tmp_path / "a.jsonl").write_bytes(GOOD_JSON + b"?\n" + GOOD_JSON + b"!\n" + GOOD_JSON)
    with caplog.at_level(logging.INFO):
        assert list(read(tmp_path / "a.jsonl", bad_rows="skip")) == ["a.jsonl:1", "a.jsonl:3", "a.jsonl:5"]
    assert "Left out 2 bad rows of text" in caplog.text


def test_a_badly_encoded_text_file_is_told_with_the_line_of_the_byte(tmp_path):
    (tmp_path / "a.txt").write_bytes("good äöü\n".encode() * 3000 + b"L\xf6wis\n")
    (tmp_path / "b.txt").write_text("fine")
    with pytest.raises(UserError, match=r"a\.txt:3001 is not utf-8 \(byte 0xF6\); `encoding` names another one"):
        read(tmp_path / "*.txt")
    assert read(tmp_path / "*.txt", bad_rows="skip") == {"b.txt": "fine"}
    (tmp_path / "c.txt").write_bytes("text".encode("utf-16") + b"!")
    with pytest.raises(UserError, match=r"c\.txt:1 is not utf-16 \(byte 0x21\)"):
        read(tmp_path / "c.txt", encoding="utf-16")


@given(lines=st.lists(st.binary(max_size=6).filter(lambda line: b"\n" not in line and b"\r" not in line), max_size=6))
def test_exactly_the_lines_that_python_cannot_decode_are_bad(tmp_path_factory, lines):
    path = tmp_path_factory.mktemp("lines") / "a.txt"
    path.write_bytes(b"first\n" + b"\n".join(lines))  # the first holds any byte order mark off

    def decoded(line):
        try:
            return line.decode()
        except UnicodeDecodeError:
            return ""

    expected = {f"a.txt:{n}": text for n, text in enumerate(map(decoded, lines), start=2) if text.strip()}
    assert read(path, sample_by="line", bad_rows="skip") == {"a.txt:1": "first"} | expected


@pytest.mark.parametrize("suffix", ["gz", "xz", "zst"])
def test_a_file_whose_compressed_end_is_missing_is_told_with_the_last_line(tmp_path, suffix):
    if suffix == "zst":
        pack = pytest.importorskip("backports.zstd").compress
    else:
        pack = {"gz": gzip.compress, "xz": lzma.compress}[suffix]
    path = tmp_path / f"a.jsonl.{suffix}"
    path.write_bytes(pack(GOOD_JSON * 20_000)[:-9])
    with pytest.raises(UserError, match=rf"{path}:\d+ is the last that can be read of it \(the file is damaged: "):
        read(path)
    assert set(read(path, bad_rows="skip").values()) == {"good"}


@pytest.mark.parametrize("name", ["a.txt.gz", "a.csv.bz2", "a.jsonl.xz", "a.parquet", "a.txt.zst"])
def test_what_is_not_the_format_that_its_name_says_is_told(tmp_path, name):
    (tmp_path / name).write_bytes(b"this is plain text, in truth\n" * 9)
    with pytest.raises(UserError, match=rf"{name} cannot be read \(the file is damaged: "):
        read(tmp_path / name)


@pytest.mark.parametrize("suffix", ["csv", "tsv", "parquet"])
def test_a_missing_column_is_told_with_the_nearest(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    if suffix == "parquet":
        arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
        parquet.write_table(arrow.table({"texts": ["good"]}), path)
    else:
        path.write_text("texts\ngood\n")
    with pytest.raises(UserError, match=rf"a\.{suffix}:1 has no column 'text': set `field` to texts"):
        read(path, bad_rows="skip")


def test_a_parquet_column_of_something_else_is_told_by_row(tmp_path):
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    parquet.write_table(arrow.table({"text": ["good", None, "good"]}), tmp_path / "a.parquet")
    with pytest.raises(UserError, match=r"a\.parquet:2 holds null in the field 'text', not text"):
        read(tmp_path / "a.parquet")
    parquet.write_table(arrow.table({"text": [1.5]}), tmp_path / "b.parquet")
    with pytest.raises(UserError, match=r"b\.parquet:1 holds float in the field 'text', not text"):
        read(tmp_path / "b.parquet")
    not_text = arrow.array([b"good", b"na\xefve"]).view(arrow.string())
    parquet.write_table(arrow.table({"text": not_text}), tmp_path / "c.parquet")
    with pytest.raises(UserError, match=r"c\.parquet:2 holds a text that is not UTF-8 \(byte 0xEF\)"):
        read(tmp_path / "c.parquet")


def test_a_pattern_without_files_is_told(tmp_path):
    (tmp_path / "a.txt").write_text("text")
    with pytest.raises(UserError, match=rf"files: no file matches {tmp_path}/\*\.md: check"):
        list(TextFiles([f"{tmp_path}/*.txt", f"{tmp_path}/*.md"]).documents())
    with pytest.raises(UserError, match=rf"files: {tmp_path} is a folder: name the files in it, as in .*\*\*/\*\.txt"):
        read(tmp_path)
    with pytest.raises(UserError, match="files: names no pattern"):
        list(TextFiles([]).documents())


def test_a_name_field_of_something_else_is_told(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "x", "id": 1}\n{"text": "x", "id": [1]}\n')
    with pytest.raises(UserError, match=r"a\.jsonl:2 holds list in the field 'id'"):
        read(tmp_path / "a.jsonl", name_field="id")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_told(tmp_path):
    (tmp_path / "a.txt").write_text("text")
    (tmp_path / "a.txt").chmod(0)
    with pytest.raises(UserError, match=r"a\.txt cannot be read \(Permission denied\)"):
        read(tmp_path / "a.txt", bad_rows="skip")


def test_a_file_that_the_machine_cannot_read_is_told(tmp_path):
    # What /proc holds of a process's memory is a file that exists, and reading it at 0 is an input/output error.
    memory = f"/proc/{os.getpid()}/mem"
    if not os.path.isfile(memory):
        pytest.skip("needs /proc")
    with pytest.raises(UserError, match=rf"{memory} cannot be read \(Input/output error\): check it"):
        read(memory, bad_rows="skip")


def test_an_encoding_that_does_not_exist_is_told(tmp_path):
    (tmp_path / "a.txt").write_text("text")
    with pytest.raises(UserError, match="encoding: Python knows no encoding 'utf-9'"):
        read(tmp_path / "a.txt", encoding="utf-9")


@pytest.mark.parametrize(
    ("name", "libraries", "remedy"),
    [
        ("a.txt.zst", ["compression.zstd", "backports.zstd"], r"run pip install backports\.zstd"),
        ("a.parquet", ["pyarrow"], "run pip install pyarrow"),
    ],
)
def test_a_missing_library_is_told_in_one_sentence(tmp_path, monkeypatch, name, libraries, remedy):
    for library in libraries:
        monkeypatch.setitem(sys.modules, library, None)
    (tmp_path / name).write_bytes(b"content")
    with pytest.raises(UserError, match=remedy):
        read(tmp_path / name)


def test_a_compressed_parquet_file_is_told(tmp_path):
    pytest.importorskip("pyarrow")
    (tmp_path / "a.parquet.gz").write_bytes(b"content")
    with pytest.raises(UserError, match="decompress it first"):
        read(tmp_path / "a.parquet.gz")
