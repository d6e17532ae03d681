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


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("class_path: TripletDataModule\ninit_args: {sorce: 1}\n", "there is no setting data.sorce: .* has source"),
        ("a: [\n", "cannot be read as YAML"),
        (None, "there is no file"),
    ],
)
def test_what_is_wrong_with_triplets_is_said_in_a_sentence(tmp_path, content, message):
    path = tmp_path / "triplets.yaml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UserError, match=message) as error:
        read_documents([], triplets=str(path))
    assert "Union" not in str(error.value)
    assert "mend the file, or name one such as" in str(error.value)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"text": "\\ud800 x"}', "holds half of a surrogate pair"),
        ('{"text": "x", "number": ' + "1" * 5000 + "}", "is no JSON"),
        ("[" * 200_000, "is no JSON"),
        ('{"text": ""}', "has no text under"),
    ],
)
def test_a_row_that_no_model_could_read_is_named(tmp_path, line, reason):
    (tmp_path / "rows.jsonl").write_text('{"text": "one"}\n' + line)
    with pytest.raises(UserError, match=rf"rows.jsonl:2 {reason}.*: mend the line"):
        read_documents([str(tmp_path / "rows.jsonl")])


@pytest.mark.parametrize("text", ["", " \n", "caf\udce9"])
def test_a_document_without_a_text_is_refused(text):
    with pytest.raises(UserError, match=r"document: number 2 (is empty|holds half of a surrogate pair)"):
        read_documents([], ["one", text])


def test_a_byte_order_mark_and_the_line_ends_of_other_systems_are_no_text(tmp_path):
    (tmp_path / "lines.txt").write_bytes("\ufeffone\r\ntwo\rthree\u2028four\r\n\r\n".encode())
    found = read_documents([str(tmp_path / "lines.txt")])
    assert [document.text for document in found] == ["one", "two", "three\u2028four"]
    assert [document.source for document in found] == ["lines.txt:1", "lines.txt:2", "lines.txt:3"]
