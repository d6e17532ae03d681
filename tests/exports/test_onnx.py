"""Encoders as ONNX graphs, used as the card says."""

import json
import re
import sys

import pytest
import torch

from backbones import ConcatenatedEncoder, TextEncoder
from exports import export_encoder, onnx
from run_store import UserError
from tests.exports.encoders import MINILM, PROMPTS, TEXTS, ours, save_qwen, trained


@pytest.fixture(scope="module")
def qwen(tmp_path_factory):
    return save_qwen(tmp_path_factory.mktemp("qwen"))


@pytest.fixture(scope="module")
def encoders(qwen):
    minilm = TextEncoder(MINILM, precision="float32", max_length=32)
    minilm.build()
    small = {"precision": "float32", "max_length": 32}
    causal = TextEncoder(qwen, **small, pooling="last_token", prompts=PROMPTS)
    both_ways = TextEncoder(qwen, **small, is_causal=False, normalize=False)
    return {
        "minilm": minilm.eval(),
        "causal": trained(causal),
        "joined": trained(ConcatenatedEncoder([causal, both_ways], weights=[2.0, 1.0])),
    }


def by_the_card(folder, monkeypatch):
    """The function that the Python in the README defines."""
    monkeypatch.chdir(folder.parent)
    (code,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text("utf-8"), re.DOTALL)
    names = {}
    exec(code, names)
    return names["embed"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["minilm", "causal", "joined"])
def test_onnxruntime_computes_the_same(encoders, tmp_path, monkeypatch, name):
    encoder = encoders[name]
    export_encoder(encoder, tmp_path / "files", "onnx")
    embed = by_the_card(tmp_path / "files", monkeypatch)
    for prompt, column in [("query", "anchor"), ("document", "positive")]:
        expected = ours(encoder, TEXTS, column)
        torch.testing.assert_close(torch.from_numpy(embed(list(TEXTS), prompt)), expected, rtol=1e-4, atol=1e-5)
        alone = torch.cat([torch.from_numpy(embed([text], prompt)) for text in TEXTS])
        torch.testing.assert_close(alone, expected, rtol=1e-4, atol=1e-5)
    found = [json.loads(path.read_text()) for path in (tmp_path / "files").rglob("embedding.json")]
    assert found
    assert all(settings["largest_distance"] < 1e-6 for settings in found)


@pytest.mark.slow
def test_a_graph_that_computes_something_else_is_refused(encoders, tmp_path, monkeypatch):
    encoder = encoders["causal"]
    write = onnx._write_graph

    def write_another(embedder, path, encoder):
        embedder.pooling = "mean"
        write(embedder, path, encoder)

    monkeypatch.setattr(onnx, "_write_graph", write_another)
    with pytest.raises(UserError, match=r"onnxruntime computes something else than model .* \(1 - cosine up to"):
        export_encoder(encoder, tmp_path / "files", "onnx")
    assert not list(tmp_path.iterdir())


def test_a_missing_package_is_said_before_anything_is_made(encoders, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(UserError, match=r'onnx needs the package onnxscript: run pip install -e ".\[onnx\]"'):
        export_encoder(encoders["causal"], tmp_path / "files", "onnx")
    assert not list(tmp_path.iterdir())
