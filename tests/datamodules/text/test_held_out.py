import json
from collections import Counter

import pytest

from datamodules.shards import split_of
from datamodules.text import HeldOut, Mixture, Shuffled, TextFiles
from run_store import UserError

PARTS = ("train", "validation", "test")
SHARES = {"validation_share": 0.2, "test_share": 0.2}


@pytest.fixture
def folder(tmp_path):
    for number in range(60):
        (tmp_path / f"{number}.txt").write_text(f"text {number}")
    return tmp_path


def files(folder):
    return TextFiles(str(folder / "*.txt"))


def parts(corpus, **settings):
    """Name → part."""
    found = [
        (document.name, part)
        for part in PARTS
        for document in HeldOut(corpus, part, **{**SHARES, **settings}).documents()
    ]
    assert len(dict(found)) == len(found)
    return dict(found)


def test_the_parts_together_are_the_corpus_and_no_document_is_in_two(folder):
    assert parts(files(folder)).keys() == {document.name for document in files(folder).documents()}
    assert set(Counter(parts(files(folder)).values())) == set(PARTS)


def test_a_document_keeps_its_part_when_files_are_added_or_removed(folder):
    before = parts(files(folder))
    for number in range(60, 120):
        (folder / f"{number}.txt").write_text("more")
    assert before.items() <= parts(files(folder)).items()
    (folder / "7.txt").unlink()
    assert parts(files(folder)).keys() & {"7.txt"} == set()
    assert all(before[name] == part for name, part in parts(files(folder)).items() if name in before)


def test_a_row_keeps_its_part_when_other_files_are_added(tmp_path):
    (tmp_path / "b.jsonl").write_text("".join(f'{{"text": "{number}"}}\n' for number in range(50)))
    corpus = TextFiles(str(tmp_path / "*.jsonl"))
    before = parts(corpus)
    (tmp_path / "a.jsonl").write_text('{"text": "first of all"}\n')
    assert len(before) == 50
    assert before.items() <= parts(corpus).items()


def test_a_document_keeps_its_part_when_the_folder_moves(folder, tmp_path_factory):
    before = parts(files(folder))
    moved = tmp_path_factory.mktemp("elsewhere") / "deep"
    folder.rename(moved)
    assert parts(files(moved)) == before


def test_a_document_keeps_its_part_in_another_order_and_beside_other_corpora(folder):
    assert parts(Shuffled(files(folder), 3)) == parts(files(folder))
    other = TextFiles(str(folder / "1*.txt"))
    alone = parts(Mixture({"a": files(folder)}, {"a": 1}))
    beside = parts(Mixture({"b": other, "a": files(folder)}, {"a": 1, "b": 2}, stop="all_exhausted"))
    assert len(alone) == 60
    assert alone.items() <= beside.items()


def test_the_parts_are_those_of_a_store_of_activations(folder):
    for name, part in parts(files(folder), seed=5).items():
        assert part == split_of(name, 5, 0.2, 0.2)


def test_another_seed_holds_others_out(folder):
    assert parts(files(folder), seed=1) != parts(files(folder), seed=2)


def test_an_empty_part_and_impossible_shares_are_told(folder):
    with pytest.raises(UserError, match="none of the corpus's 60 documents is in 'test': raise its share"):
        list(HeldOut(files(folder), "test", test_share=0).documents())
    with pytest.raises(UserError, match=r"validation_share 0\.7 and test_share 0\.6 exceed 1"):
        list(HeldOut(files(folder), "test", validation_share=0.7, test_share=0.6).documents())


def test_describes_its_settings_in_json(folder):
    settings = HeldOut(files(folder), "test", 3, **SHARES).describe()
    assert json.loads(json.dumps(settings)) == settings
    assert settings["corpus"] == files(folder).describe()
    assert (settings["part"], settings["seed"], settings["test_share"]) == ("test", 3, 0.2)
