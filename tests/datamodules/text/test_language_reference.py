import sys

import pytest

from datamodules.text import LanguageReference
from run_store import UserError


def test_paragraphs_of_prose_each_once_and_always_in_the_same_order():
    documents = list(LanguageReference().documents())
    assert len(documents) > 500
    assert len({document.text for document in documents}) == len({document.name for document in documents})
    assert all(len(document.text.split()) >= 20 for document in documents)
    assert documents == list(LanguageReference().documents())
    # no topic comes first
    assert len({document.name.partition(":")[0] for document in documents[:100]}) > 20


def test_fewer_words_give_more_paragraphs():
    assert len(list(LanguageReference(1).documents())) > len(list(LanguageReference().documents()))
    assert LanguageReference(7).describe()["min_words"] == 7


def test_a_python_without_its_help_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)
    with pytest.raises(UserError, match="comes without pydoc_data"):
        next(LanguageReference().documents())
