import json

import pytest

from callbacks.prediction_samples import read_samples
from lightning_modules.predictions import Sample
from run_store import UserError


@pytest.fixture
def file(tmp_path):
    """file(lines) → the path of a file of samples."""

    def write(*lines):
        path = tmp_path / "samples.jsonl"
        path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines), "utf-8")
        return str(path)

    return write


def test_a_sample_has_an_index_a_prompt_and_a_ground_truth_if_there_is_one(file):
    path = file({"prompt": "a\u2028b", "ground_truth": "A"}, "", {"prompt": "b"}, {"prompt": "c", "index": 7, "x": 1})
    assert read_samples(path, 5, 0) == [Sample(0, "a\u2028b", "A"), Sample(1, "b"), Sample(7, "c")]


def test_the_seed_draws_them(file):
    path = file(*({"prompt": str(i)} for i in range(50)))
    first, again, other = (read_samples(path, 5, seed) for seed in (0, 0, 1))
    assert first == again != other
    assert len({sample.index for sample in first}) == 5
    assert all(sample.prompt == str(sample.index) for sample in first)


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        ((), "has no sample"),
        (('{"prompt": "a"}', '{"prompt": '), ":2 is not valid JSON"),
        (("[" * 100_000,), ":1 is not valid JSON"),
        (('["a"]',), ":1 is no JSON object"),
        (('{"text": "a"}',), ":1 has no prompt"),
        (('{"prompt": " "}',), ":1 has no prompt"),
        (('{"prompt": ["a"]}',), ":1 has no prompt"),
        (('{"prompt": "a", "ground_truth": 3}',), ":1: ground_truth is no text"),
        (('{"prompt": "a", "index": -1}',), ":1: index -1 is no whole number"),
        (('{"prompt": "a", "index": true}',), ":1: index True is no whole number"),
        (('{"prompt": "a", "index": 1e3}',), ":1: index 1000.0 is no whole number"),
        (('{"prompt": "a", "index": 1}', '{"prompt": "b"}'), ":2 has the index 1 of an earlier line"),
        (('{"prompt": "\\ud800"}',), ":1 holds half of a surrogate pair"),
    ],
)
def test_a_malformed_file_is_one_sentence(file, lines, sentence):
    with pytest.raises(UserError) as refused:
        read_samples(file(*lines), 5, 0)
    assert sentence in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_file_that_cannot_be_read_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match=r"none\.jsonl cannot be read .*: check the path"):
        read_samples(str(tmp_path / "none.jsonl"), 5, 0)
    with pytest.raises(UserError, match="cannot be read"):
        read_samples(str(tmp_path), 5, 0)
    (tmp_path / "latin").write_bytes(b'{"prompt": "\xe9"}')
    with pytest.raises(UserError, match="is not UTF-8"):
        read_samples(str(tmp_path / "latin"), 5, 0)
