"""Bare SentencePiece files (`.model`) as fast tokenizers, built from the file alone.

The format is sentencepiece_model.proto of https://github.com/google/sentencepiece; what its normaliser and its models
do is described in Kudo and Richardson, SentencePiece, 2018 (arXiv:1808.06226).
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import BPE, Unigram
from transformers import PreTrainedTokenizerFast

from run_store import UserError

SPACE = "▁"

# Kinds of pieces and of models, as the format numbers them.
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
UNIGRAM_MODEL, BPE_MODEL = 1, 2


class Piece(NamedTuple):
    """An entry of the vocabulary; its index is its id."""

    text: str
    score: float
    kind: int


@dataclass
class SentencePieceFile:
    """What a `.model` file says that decides how text becomes ids."""

    pieces: list[Piece]
    model_type: int = UNIGRAM_MODEL
    space_is_suffix: bool = False
    byte_fallback: bool = False
    begin: str = "<s>"
    end: str = "</s>"
    padding: str = "<pad>"
    character_map: bytes = b""
    add_dummy_prefix: bool = True
    remove_extra_whitespaces: bool = True
    escape_whitespaces: bool = True

    def of_kind(self, *kinds: int) -> list[str]:
        """Texts of the pieces of these kinds."""
        return [piece.text for piece in self.pieces if piece.kind in kinds]


def read_sentencepiece_file(path: Path) -> SentencePieceFile:
    """Reads a `.model` file.

    Raises:
        UserError: it cannot be read, is damaged, or is none.
    """
    try:
        file = _parse(path.read_bytes())
    except (OSError, ValueError, IndexError, struct.error) as error:
        raise UserError(f"{path} is not a whole SentencePiece model ({error}): get the file again") from error
    if not file.pieces or len(file.of_kind(UNKNOWN)) != 1:
        raise UserError(f"{path} is not a whole SentencePiece model (no vocabulary in it): get the file again")
    if file.model_type not in (UNIGRAM_MODEL, BPE_MODEL) or file.space_is_suffix or not file.escape_whitespaces:
        raise UserError(
            f"{path} is a SentencePiece model of a kind that has no fast version (only unigram and BPE with spaces "
            "before words have one): choose another tokenizer"
        )
    return file


def fast_tokenizer(file: SentencePieceFile) -> PreTrainedTokenizerFast:
    """A transformers tokenizer that gives the ids that the SentencePiece library gives.

    It differs where a unigram model has several segmentations of one score (runs of a sign, which it may cut in
    another order), where combining marks stand on compatibility characters, and, in a BPE model with symbols of the
    user, in the first space of a text that begins with one.
    """
    tokenizer = Tokenizer(_unigram(file) if file.model_type == UNIGRAM_MODEL else _bpe(file))
    tokenizer.normalizer = normalizers.Sequence(list(_normalizers(file)))
    splits = list(_splits(file))
    if splits:
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(splits)
    tokenizer.decoder = _decoder(file)
    if file.model_type == BPE_MODEL:
        symbols = [AddedToken(text, normalized=False, special=False) for text in file.of_kind(USER_DEFINED)]
        tokenizer.add_tokens(symbols)
    control = set(file.of_kind(CONTROL))
    tokenizer.add_special_tokens([AddedToken(text, normalized=False, special=True) for text in file.of_kind(CONTROL)])
    roles = {
        "bos_token": [file.begin],
        "eos_token": [file.end],
        "pad_token": [file.padding],
        "cls_token": ["[CLS]", "<cls>"],
        "sep_token": ["[SEP]", "<sep>"],
        "mask_token": ["[MASK]", "<mask>"],
    }
    named = {role: name for role, names in roles.items() for name in names if name in control}
    fast: PreTrainedTokenizerFast = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer, unk_token=file.of_kind(UNKNOWN)[0], **named
    )
    return fast


def _unigram(file: SentencePieceFile) -> Unigram:
    best = max((piece.score for piece in file.pieces if piece.kind == NORMAL), default=0.0)

    def score(piece: Piece) -> float:
        # The library's own bonus, which has a symbol of the user always chosen.
        return len(piece.text.encode()) * best - 0.1 if piece.kind == USER_DEFINED else piece.score

    unknown = next(index for index, piece in enumerate(file.pieces) if piece.kind == UNKNOWN)
    worst = min((piece.score for piece in file.pieces if piece.kind == NORMAL), default=0.0)
    # Pieces that no text becomes must not change the score of an unknown character, which hangs on the lowest.
    vocabulary = [
        (piece.text, score(piece) if piece.kind in (NORMAL, USER_DEFINED) else worst) for piece in file.pieces
    ]
    return Unigram(vocabulary, unknown, file.byte_fallback)


def _bpe(file: SentencePieceFile) -> BPE:
    vocabulary = {piece.text: index for index, piece in enumerate(file.pieces)}
    scores = {piece.text: piece.score for piece in file.pieces if piece.kind == NORMAL}
    merges = [
        (text[:cut], text[cut:])
        for text in sorted(scores, key=lambda text: -scores[text])
        for cut in range(1, len(text))
        if text[:cut] in scores and text[cut:] in scores
    ]
    unknown = file.of_kind(UNKNOWN)[0]
    return BPE(vocabulary, merges, unk_token=unknown, fuse_unk=True, byte_fallback=file.byte_fallback)


def _normalizers(file: SentencePieceFile) -> Iterator[normalizers.Normalizer]:
    if file.character_map:
        # The map knows decomposed letters as sequences, which its fast version reads one by one.
        yield normalizers.NFC()
        yield normalizers.Precompiled(file.character_map)
    if file.remove_extra_whitespaces:
        # A space of the text and the sign that stands for one are told apart at its beginning alone.
        yield normalizers.Replace(Regex(rf"\A +|[ {SPACE}]+\z"), "")
        yield normalizers.Replace(Regex(" {2,}"), " ")
    if file.add_dummy_prefix and not _prefix_by_pre_tokenizer(file):
        yield normalizers.Prepend(SPACE)
    yield normalizers.Replace(" ", SPACE)


def _splits(file: SentencePieceFile) -> Iterator[pre_tokenizers.PreTokenizer]:
    if file.add_dummy_prefix and _prefix_by_pre_tokenizer(file):
        yield pre_tokenizers.Metaspace(SPACE, prepend_scheme="first", split=False)
    # The library reads a text as one word. Where no piece goes on after a space that follows a letter, cutting there
    # changes nothing, and words can be kept in a cache.
    pieces = file.of_kind(NORMAL, USER_DEFINED)
    if SPACE in pieces and all(SPACE not in text.lstrip(SPACE) for text in pieces):
        yield pre_tokenizers.Split(Regex(f"{SPACE}+[^{SPACE}]*|[^{SPACE}]+"), "isolated")
    if file.model_type == UNIGRAM_MODEL:
        names = "|".join(re.escape(text[1:]) for text in file.of_kind(UNKNOWN, CONTROL, BYTE) if len(text) > 1)
        firsts = "".join({re.escape(text[0]) for text in file.of_kind(UNKNOWN, CONTROL, BYTE) if text})
        # Text may hold the name of a control piece, which is not what the piece stands for.
        yield pre_tokenizers.Split(Regex(f"[{firsts}](?={names})"), "merged_with_previous")


def _prefix_by_pre_tokenizer(file: SentencePieceFile) -> bool:
    # A normaliser sees the text on both sides of a symbol of the user and would put a prefix on either.
    return file.model_type == BPE_MODEL and bool(file.of_kind(USER_DEFINED))


def _decoder(file: SentencePieceFile) -> decoders.Decoder:
    steps = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    return decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)] if file.add_dummy_prefix else steps)


def _parse(data: bytes) -> SentencePieceFile:
    file = SentencePieceFile([])
    for field, value in _fields(data):
        if field == 1:
            file.pieces.append(_piece(_bytes(value)))
        elif field in (2, 3):
            names = _TRAINER_FIELDS if field == 2 else _NORMALIZER_FIELDS
            for inner, setting in _fields(_bytes(value)):
                if inner in names:
                    name, convert = names[inner]
                    setattr(file, name, convert(setting))
    return file


def _piece(data: bytes) -> Piece:
    values: dict[int, int | bytes] = dict(_fields(data))
    (score,) = struct.unpack("<f", _bytes(values.get(2, b"\0\0\0\0")))
    return Piece(_text(values.get(1, b"")), score, _number(values.get(3, NORMAL)))


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yields (number, value) of a protocol buffer's fields (https://protobuf.dev/programming-guides/encoding)."""
    place = 0
    while place < len(data):
        key, place = _varint(data, place)
        wire = key & 7
        value: int | bytes
        if wire == 0:
            value, place = _varint(data, place)
        else:
            if wire == 2:
                size, place = _varint(data, place)
            else:
                size = {1: 8, 5: 4}.get(wire, -1)
            if size < 0 or place + size > len(data):
                raise ValueError("it ends early or is of another format")
            value, place = data[place : place + size], place + size
        yield key >> 3, value


def _varint(data: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if place >= len(data) or shift > 63:
            raise ValueError("it ends early or is of another format")
        byte = data[place]
        value |= (byte & 127) << shift
        shift, place = shift + 7, place + 1
        if byte < 128:
            return value, place


def _bytes(value: int | bytes) -> bytes:
    if not isinstance(value, bytes):
        raise ValueError("it is of another format")
    return value


def _text(value: int | bytes) -> str:
    return _bytes(value).decode()


def _number(value: int | bytes) -> int:
    if isinstance(value, bytes):
        raise ValueError("it is of another format")
    return value


def _flag(value: int | bytes) -> bool:
    return bool(_number(value))


# Field numbers of the format: which setting each becomes, and how it is read.
_TRAINER_FIELDS: dict[int, tuple[str, Callable[[int | bytes], object]]] = {
    3: ("model_type", _number),
    24: ("space_is_suffix", _flag),
    35: ("byte_fallback", _flag),
    46: ("begin", _text),
    47: ("end", _text),
    48: ("padding", _text),
}
_NORMALIZER_FIELDS: dict[int, tuple[str, Callable[[int | bytes], object]]] = {
    2: ("character_map", _bytes),
    3: ("add_dummy_prefix", _flag),
    4: ("remove_extra_whitespaces", _flag),
    5: ("escape_whitespaces", _flag),
}
