"""Ids against those of the SentencePiece library itself."""

import io
import itertools
import unicodedata
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from backbones import load_tokenizer, tokenizer_sha256
from datamodules.text import Document, StandardLibrary, joining_tokens, tokenise
from datamodules.text.tokenising import ids_in_pieces
from run_store import UserError

sentencepiece = pytest.importorskip("sentencepiece")

AS_IS = {"normalization_rule_name": "identity", "remove_extra_whitespaces": False}
KINDS = {
    "unigram": {"model_type": "unigram"},
    "unigram with bytes": {"model_type": "unigram", "byte_fallback": True},
    "unigram as is": {"model_type": "unigram", **AS_IS, "user_defined_symbols": ["<mask>", "\n"]},
    "unigram in lower case": {"normalization_rule_name": "nfkc_cf", "add_dummy_prefix": False},
    "unigram over spaces": {"split_by_whitespace": False, "control_symbols": ["[CLS]", "[SEP]"], "pad_id": 3},
    "bpe": {"model_type": "bpe"},
    "bpe with bytes": {"model_type": "bpe", "byte_fallback": True, **AS_IS, "split_digits": True},
    "bpe with symbols": {"model_type": "bpe", **AS_IS, "add_dummy_prefix": False, "user_defined_symbols": ["<mask>"]},
    "bpe with runs of spaces": {"model_type": "bpe", **AS_IS, "allow_whitespace_only_pieces": True},
}
FOREIGN = ["naïve café über straße", "Привет мир как дела", "数字 汉字 日本語", "한국어 텍스트", "العربية"]
LINES = [
    line
    for document in itertools.islice(StandardLibrary(4000).documents(), 40)
    for line in document.text.splitlines()
    if line.strip() and "==" not in line and "--" not in line and "##" not in line
]


@pytest.fixture(scope="session")
def files(tmp_path_factory):
    """A small model of each kind, trained on source code and a little of other scripts."""
    folder = tmp_path_factory.mktemp("sentencepiece")
    for kind, options in KINDS.items():
        model = io.BytesIO()
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(LINES[:600] + FOREIGN * 5),
            model_writer=model,
            vocab_size=500,
            hard_vocab_limit=False,
            minloglevel=2,
            **options,
        )
        (folder / f"{kind}.model").write_bytes(model.getvalue())
    return folder


@pytest.fixture(scope="session", params=KINDS)
def both(request, files):
    """The library's own reader of a model, and ours."""
    file = str(files / f"{request.param}.model")
    return sentencepiece.SentencePieceProcessor(model_file=file), load_tokenizer(file)


def ids_of(tokenizer, text):
    return tokenizer(text, add_special_tokens=False, split_special_tokens=True, verbose=False).input_ids


# Not compared are what `fast_tokenizer` says it gives up: marks that combine with compatibility characters, and the
# order in which a unigram model cuts a run of one sign.
characters = st.characters(exclude_categories=["Cs", "Mn", "Mc", "Me"], exclude_characters="\u2581\r").filter(
    lambda character: not "\u1100" <= character <= "\u11ff" and unicodedata.is_normalized("NFC", character)
)
awkward = st.sampled_from(
    [
        *"\t\n\x00\x07\x1f\x85\xa0\u200b\u2028\u3000\ufeff▁ ﬁ①éß한😀",
        "  ",
        "👨\u200d👩\u200d👧",
        "<s>",
        "</s>",
        "<unk>",
        "<0x41>",
        "<mask>",
        "[CLS]",
    ]
)
texts = st.lists(
    st.sampled_from(LINES + FOREIGN) | awkward | characters | st.text("abcdef ()", max_size=9), max_size=12
)


@pytest.mark.first_is_fast
@settings(max_examples=60)
@given(parts=texts)
def test_ids_are_the_librarys_own(both, parts):
    library, ours = both
    text = "x" + "".join(parts)
    assert ids_of(ours, text) == library.encode(text)


@pytest.mark.parametrize("text", ["", " ", "   ", "\n", "▁", "a", " a", "a ", "  a  b  ", "a\n\n  b\t c", *FOREIGN])
def test_ends_and_spaces_are_the_librarys_own(both, text):
    library, ours = both
    assert ids_of(ours, text) == library.encode(text)


@pytest.mark.parametrize("text", ["cafe\u0301 u\u0308ber", unicodedata.normalize("NFD", "한국어 텍스트 naïve")])
def test_decomposed_letters_are_the_librarys_own(both, text):
    library, ours = both
    assert ids_of(ours, text) == library.encode(text)


def test_the_vocabulary_and_its_decoding_are_the_librarys_own(both):
    library, ours = both
    assert len(ours) == library.get_piece_size()
    assert ours.convert_ids_to_tokens(range(len(ours))) == [library.id_to_piece(i) for i in range(len(ours))]
    for line in LINES[100:130]:
        ids = [id for id in library.encode(line) if id != library.unk_id()]
        assert ours.decode(ids) == library.decode(ids)


def test_special_tokens_are_known_by_their_roles(files):
    plain, bert = (load_tokenizer(str(files / f"{kind}.model")) for kind in ("bpe", "unigram over spaces"))
    assert (plain.bos_token_id, plain.eos_token_id, plain.unk_token_id, plain.pad_token_id) == (1, 2, 0, None)
    assert joining_tokens(plain) == ((1,), (2,))
    assert [bert.convert_ids_to_tokens(list(ids)) for ids in joining_tokens(bert)] == [["[CLS]"], ["[SEP]"]]
    assert bert.pad_token_id == 3


def test_documents_are_tokenised_alike_whole_and_in_pieces(both):
    library, ours = both
    # the library adds scores up in float32, so in a long text its choice among near equals is no longer the best
    short, long = "\n".join(LINES[:60]), "\n".join(LINES[:500])
    ((_, ids),) = tokenise([Document("code", short)], ours)
    assert ids.tolist() == library.encode(short)
    ((_, ids),) = tokenise([Document("code", long)], ours)
    assert ids_in_pieces(long, ours, 4000, 800).tolist() == ids.tolist()


def test_a_saved_tokenizer_is_the_same(both, tmp_path):
    _, ours = both
    ours.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert [ids_of(again, line) for line in LINES[:50]] == [ids_of(ours, line) for line in LINES[:50]]
    assert joining_tokens(again) == joining_tokens(ours)


def test_files_have_hashes_of_their_own(files):
    assert len({tokenizer_sha256(str(file)) for file in files.iterdir()}) == len(KINDS)


def test_a_missing_file_is_said():
    for use in (load_tokenizer, tokenizer_sha256):
        with pytest.raises(UserError, match=r"SentencePiece file ./none.model does not exist: check the path"):
            use("./none.model")


@given(data=st.data())
def test_a_damaged_file_is_said_or_still_whole(files, tmp_path_factory, data):
    whole = (files / "bpe.model").read_bytes()
    damaged = tmp_path_factory.getbasetemp() / "damaged.model"
    damaged.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    # Only cut at the end of a part can the rest be a model too.
    with suppress(UserError):
        load_tokenizer(str(damaged))


@pytest.mark.parametrize(
    "content", [b"", b"hello, this is text\n", b"IQ== 0\nIg== 1\n", bytes(range(256)), b"\x00" * 99]
)
def test_another_file_is_said(tmp_path, content):
    (tmp_path / "other.model").write_bytes(content)
    with pytest.raises(UserError, match=r"other.model is not a whole SentencePiece model .*: get the file again"):
        load_tokenizer(str(tmp_path / "other.model"))


@pytest.mark.parametrize("options", [{"model_type": "char"}, {"treat_whitespace_as_suffix": True}])
def test_kinds_without_a_fast_version_are_said(tmp_path, options):
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(LINES[:200]),
        model_writer=model,
        vocab_size=120,
        hard_vocab_limit=False,
        minloglevel=2,
        **options,
    )
    (tmp_path / "odd.model").write_bytes(model.getvalue())
    with pytest.raises(UserError, match="of a kind that has no fast version"):
        load_tokenizer(str(tmp_path / "odd.model"))
