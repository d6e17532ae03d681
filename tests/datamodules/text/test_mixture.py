import json
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datamodules.text import Corpus, Document, Mixture
from run_store import UserError


class Sized(Corpus):
    """Documents 0, 1… of these lengths."""

    def __init__(self, lengths):
        self.lengths = lengths

    def documents(self):
        for number, length in enumerate(self.lengths):
            yield Document(str(number), "x" * length)

    def describe(self):
        return {"class": "Sized", "lengths": list(self.lengths)}


def names(mixture):
    return [document.name for document in mixture.documents()]


KEYS = "abc"
LENGTHS = st.lists(st.integers(1, 50), min_size=1, max_size=40)
WEIGHTS = st.fixed_dictionaries({key: st.floats(0.1, 10) for key in KEYS})


@given(lengths=st.fixed_dictionaries(dict.fromkeys(KEYS, LENGTHS)), weights=WEIGHTS, unit=st.sampled_from(["c", "d"]))
def test_shares_hold_from_the_beginning_to_the_end(lengths, weights, unit):
    unit = {"c": "characters", "d": "documents"}[unit]
    corpora = {key: Sized(sizes) for key, sizes in lengths.items()}
    given_of = dict.fromkeys(KEYS, 0)
    for document in Mixture(corpora, weights, unit).documents():
        given_of[document.name[0]] += len(document.text) if unit == "characters" else 1
        longest = {key: max(sizes) if unit == "characters" else 1 for key, sizes in lengths.items()}
        for key in KEYS:  # no corpus is ahead of another by more than its own longest document
            ahead = given_of[key] / weights[key] - min(given_of[other] / weights[other] for other in KEYS)
            assert ahead <= longest[key] / weights[key] + 1e-9


@given(lengths=st.fixed_dictionaries(dict.fromkeys(KEYS, LENGTHS)), weights=WEIGHTS)
def test_every_corpus_keeps_its_order_and_no_document_comes_twice(lengths, weights):
    corpora = {key: Sized(sizes) for key, sizes in lengths.items()}
    first, everything = (names(Mixture(corpora, weights, stop=stop)) for stop in ("first_exhausted", "all_exhausted"))
    assert everything[: len(first)] == first
    for key, sizes in lengths.items():
        assert [name for name in everything if name[0] == key] == [f"{key}/{number}" for number in range(len(sizes))]
    assert any(sum(name[0] == key for name in first) == len(lengths[key]) for key in KEYS)


def test_a_corpus_without_end_is_mixed_by_characters_or_by_documents():
    corpora = {"long": Sized([30] * 1000), "short": Sized([10] * 1000)}
    by_characters = names(Mixture(corpora, {"long": 1, "short": 1}))[:400]
    by_documents = names(Mixture(corpora, {"long": 1, "short": 1}, unit="documents"))[:400]
    assert sum(name.startswith("long/") for name in by_characters) == 100
    assert sum(name.startswith("long/") for name in by_documents) == 200


def test_the_order_of_the_keys_and_the_scale_of_the_weights_do_not_matter():
    lengths = {"a": range(1, 90), "b": [7] * 50}
    corpora = {key: Sized(sizes) for key, sizes in lengths.items()}
    mixed = names(Mixture(corpora, {"a": 0.25, "b": 0.75}))
    turned = dict(reversed(corpora.items()))
    assert names(Mixture(turned, {"b": 3, "a": 1})) == mixed == names(Mixture(corpora, {"a": 0.25, "b": 0.75}))
    assert Mixture(turned, {"b": 3, "a": 1}).describe() == Mixture(corpora, {"a": 1, "b": 3}).describe()


def test_reads_no_further_ahead_than_the_document_it_gives():
    read = count()

    class Counted(Sized):
        def documents(self):
            for document in super().documents():
                next(read)
                yield document

    documents = Mixture({"a": Counted([5] * 99), "b": Counted([5] * 99)}, {"a": 1, "b": 1}).documents()
    for _ in range(10):
        next(documents)
    assert next(read) == 10


@pytest.mark.parametrize(
    ("corpora", "weights", "said"),
    [
        ({}, {}, "corpora: a mixture needs at least one"),
        ({"a": Sized([1])}, {}, "weights: 'a' is in corpora alone"),
        ({"a": Sized([1])}, {"a": 1, "b": 1}, "corpora: 'b' is in weights alone"),
        ({"a": Sized([1])}, {"a": 0}, "weights: a is 0: set it to a number above 0"),
        ({"a": Sized([1])}, {"a": float("nan")}, "weights: a is nan"),
        ({"a/b": Sized([1])}, {"a/b": 1}, "the key 'a/b' .* without a slash"),
    ],
)
def test_settings_that_do_not_fit_are_told(corpora, weights, said):
    with pytest.raises(UserError, match=said):
        names(Mixture(corpora, weights))


def test_describes_its_settings_in_json():
    settings = Mixture({"a": Sized([1]), "b": Sized([2])}, {"a": 1, "b": 2.5}, "documents").describe()
    assert json.loads(json.dumps(settings)) == settings
    assert settings["corpora"]["b"] == {"class": "Sized", "lengths": [2]}
    assert settings["weights"] == {"a": 1, "b": 2.5}
