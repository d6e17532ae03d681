import json
import os
import tempfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datamodules.text import Corpus, Document, Shuffled, shuffled
from run_store import UserError


class Named(Corpus):
    """Documents of these names, each holding some text of its own."""

    def __init__(self, names):
        self.names = list(names)

    def documents(self):
        for name in self.names:
            yield Document(name, f"text of {name}: ünïcode\n")

    def describe(self):
        return {"class": "Named", "names": self.names}


def order(names, **settings):
    return [document.name for document in Shuffled(Named(names), **settings).documents()]


NAMES = [f"{number}.txt" for number in range(200)]


@given(
    names=st.lists(st.text(st.characters(codec="utf-8"), max_size=5), unique=True, max_size=60),
    seed=st.integers(),
    buffer=st.none() | st.integers(1, 80),
)
def test_every_document_comes_once_and_whole_in_the_same_order_at_every_call(names, seed, buffer):
    corpus = Shuffled(Named(names), seed, buffer)
    documents = list(corpus.documents())
    assert sorted(documents) == sorted(Named(names).documents())
    assert documents == list(corpus.documents())


@pytest.mark.parametrize("buffer", [None, 50])
def test_the_seed_decides_the_order(buffer):
    orders = [order(NAMES, seed=seed, buffer_documents=buffer) for seed in range(3)]
    assert len({tuple(names) for names in [*orders, NAMES]}) == 4


def test_the_exact_order_depends_on_neither_the_corpus_s_order_nor_other_documents():
    whole = order(NAMES)
    assert order(NAMES[::-1]) == whole
    fewer = NAMES[::3]
    assert order(fewer) == [name for name in whole if name in fewer]


def test_the_exact_order_is_uniform():
    places = [0] * 10
    for seed in range(2000):
        places[order(NAMES[:10], seed=seed).index("3.txt")] += 1
    # 200 expected at each place; chi-square with 9 degrees of freedom is beyond 33.7 once in 10 000.
    assert sum((count - 200) ** 2 / 200 for count in places) < 33.7


@given(size=st.integers(1, 40), seed=st.integers(0, 1000))
def test_a_buffer_moves_no_document_earlier_than_it_says(size, seed):
    for place, name in enumerate(order(NAMES, seed=seed, buffer_documents=size)):
        assert NAMES.index(name) - place <= size - 1


def test_a_buffer_reads_no_further_than_it_must():
    read = []

    class Endless(Named):
        def documents(self):
            for number in range(10**9):
                read.append(number)
                yield Document(str(number), "text")

    documents = Shuffled(Endless([]), buffer_documents=30).documents()
    for _ in range(100):
        next(documents)
    assert len(read) == 129
    assert order(NAMES, buffer_documents=1) == NAMES


def test_large_text_waits_on_the_disk(monkeypatch):
    in_memory = order(NAMES)
    monkeypatch.setattr(shuffled, "IN_MEMORY", 100)
    assert order(NAMES) == in_memory


def test_a_full_disk_is_told(monkeypatch, small_disk):
    monkeypatch.setattr(tempfile, "tempdir", os.fspath(small_disk))
    monkeypatch.setattr(shuffled, "IN_MEMORY", 100)
    with pytest.raises(UserError, match=rf"no space left in {small_disk} .*set TMPDIR .*or set buffer_documents"):
        order(f"{number}" * 100 for number in range(900))


def test_describes_its_settings_in_json():
    settings = Shuffled(Named(["a"]), 3, 5).describe()
    assert json.loads(json.dumps(settings)) == settings
    assert settings["corpus"] == {"class": "Named", "names": ["a"]}
    assert (settings["seed"], settings["buffer_documents"]) == (3, 5)
