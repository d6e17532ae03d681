"""The folder of sentence-transformers: as the real library computes it, and as we read it back."""

import json
import os
import subprocess
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch.nn.functional import cosine_similarity

from backbones import ConcatenatedEncoder, TextEncoder
from exports import Training, export_encoder
from run_store import UserError
from tests.backbones.conftest import make_bert, save_tokenizer
from tests.exports.encoders import MINILM, PROMPTS, TEXTS, all_encoders, ours, save_qwen, trained

SCRIPT = Path(__file__).with_name("embed_with_peers.py")
NAMES = ["minilm", "causal", "both_ways", "adapted", "unnormalised", "joined"]
# what the word tokenizer of the tiny BERT knows
WORDS = ("w3 w4 w5", "w6", "w7 w8 unknown w9", " ".join(f"w{i}" for i in range(3, 30)), "w10 w3")


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    """Folders of the tiny models: qwen and bert."""
    bert = tmp_path_factory.mktemp("bert")
    torch.manual_seed(0)
    make_bert().save_pretrained(bert)
    save_tokenizer(bert)
    return {"qwen": save_qwen(tmp_path_factory.mktemp("qwen")), "bert": str(bert)}


@pytest.fixture(scope="module")
def encoders(bases):
    return all_encoders(**bases)


@pytest.fixture(scope="module")
def folder(encoders, tmp_path_factory):
    """Every encoder in a folder of its name."""
    folder = tmp_path_factory.mktemp("exported")
    for name, encoder in encoders.items():
        export_encoder(encoder, folder / name, "sentence-transformers")
    return folder


def texts_for(name):
    return WORDS if name in ("unnormalised", "joined") else TEXTS


@pytest.fixture(scope="module")
def theirs(folder, peers_python):
    (folder / "texts.json").write_text(json.dumps({name: texts_for(name) for name in NAMES}), encoding="utf-8")
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    process = subprocess.run([peers_python, str(SCRIPT), str(folder)], capture_output=True, text=True, env=environment)
    assert process.returncode == 0, process.stderr[-3000:]
    return load_file(folder / "embeddings.safetensors")


@pytest.mark.slow
@pytest.mark.peers
@pytest.mark.parametrize("name", NAMES)
def test_sentence_transformers_computes_the_same(encoders, theirs, name):
    for form, column in [("query", "anchor"), ("document", "positive"), ("single", "negative")]:
        expected, found = ours(encoders[name], texts_for(name), column), theirs[f"{name}.{form}"]
        assert cosine_similarity(found.double(), expected.double()).min() >= 0.99999
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_prompts_of_queries_and_documents_differ(encoders):
    queries, documents = (ours(encoders["causal"], TEXTS, column) for column in ("anchor", "positive"))
    assert cosine_similarity(queries, documents).min() < 0.999


@pytest.mark.parametrize("name", NAMES[:-1])
def test_what_is_read_back_computes_the_same(encoders, folder, name):
    encoder = encoders[name]
    again = TextEncoder(str(folder / name), precision="float32", prompts=encoder.prompts)
    again.build()
    assert (again.pooling, again.normalize, again.max_length) == (
        encoder.pooling,
        encoder.normalize,
        encoder.max_length,
    )
    assert again.causal == encoder.causal
    expected = ours(encoder, texts_for(name), "anchor")
    torch.testing.assert_close(ours(again.eval(), texts_for(name), "anchor"), expected, rtol=1e-4, atol=1e-5)


def test_the_settings_are_those_that_the_library_asks_for(folder):
    def read(name):
        return json.loads((folder / "causal" / name).read_text())

    kinds = [module["type"].rpartition(".")[2] for module in read("modules.json")]
    assert kinds == ["Transformer", "Pooling", "Normalize"]
    assert read("sentence_bert_config.json")["max_seq_length"] == 32
    said = read("1_Pooling/config.json")
    modes = [name for name, value in said.items() if name.startswith("pooling_mode") and value]
    assert (modes, said["word_embedding_dimension"]) == (["pooling_mode_lasttoken"], 16)
    written = read("config_sentence_transformers.json")
    assert written["prompts"] == {"query": "Query: ", "document": "Passage: "}
    assert written["similarity_fn_name"] == "cosine"
    assert json.loads((folder / "both_ways" / "config.json").read_text())["is_causal"] is False
    assert not (folder / "unnormalised" / "2_Normalize").exists()
    weights = load_file(folder / "adapted" / "model.safetensors")
    assert {value.dtype for value in weights.values()} == {torch.float32}
    assert not any("lora" in name or "base_layer" in name for name in weights)


def test_prompts_and_norms_of_a_joined_encoder_are_those_of_its_parts(folder):
    joined = json.loads((folder / "joined" / "joined.json").read_text())
    assert joined["shares"] == [0.25, 0.75]
    assert joined["widths"] == [16, 16]
    assert not (folder / "joined" / "parts" / "1" / "2_Normalize").exists()


def test_the_card_tells_base_model_prompts_and_scores(encoders, tmp_path):
    training = Training(before={"val/ndcg@10": 0.5}, after={"val/ndcg@10": 0.75, "test/ndcg@10": 0.7})
    export_encoder(encoders["causal"], tmp_path / "files", "sentence-transformers", training)
    card = (tmp_path / "files" / "README.md").read_text()
    assert yaml.safe_load(card.split("---")[1])["library_name"] == "sentence-transformers"
    assert "| val/ndcg@10 | 0.5 | 0.75 |" in card
    assert "| test/ndcg@10 |  | 0.7 |" in card
    assert encoders["causal"].lineage()["weights_sha256"] in card
    assert 'SentenceTransformer("files")' in card
    assert all(repr(prompt) in card for prompt in PROMPTS.values())


def test_a_folder_with_something_in_it_stays_as_it_is(encoders, tmp_path):
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "mine").write_text("kept")
    with pytest.raises(UserError, match="there is something in"):
        export_encoder(encoders["causal"], tmp_path / "files", "sentence-transformers")
    assert [path.name for path in tmp_path.rglob("*")] == ["files", "mine"]


def test_nothing_is_left_of_an_export_that_fails(bases, tmp_path):
    odd = {"anchor": "a: ", "positive": "b: ", "negative": "c: "}
    encoder = trained(ConcatenatedEncoder([TextEncoder(bases["bert"]), TextEncoder(bases["bert"], prompts=odd)]))
    with pytest.raises(UserError, match="negative 'c: ' differs from positive"):
        export_encoder(encoder, tmp_path / "files", "sentence-transformers")
    assert not list(tmp_path.iterdir())


def test_minilm_keeps_what_was_said_of_it(folder):
    assert json.loads((folder / "minilm" / "sentence_bert_config.json").read_text())["max_seq_length"] == 256
    card = (folder / "minilm" / "README.md").read_text()
    assert MINILM in card
    assert "base_model" not in card.split("---")[1]
