"""The two models that are to stand side by side, with their own architectures and widths, one layer each."""

from pathlib import Path

import pytest
import torch
import yaml
from jsonargparse import ArgumentParser
from torch.nn.functional import cosine_similarity, normalize
from transformers import JinaEmbeddingsV3Config, JinaEmbeddingsV3Model, Qwen2Config, Qwen2Model

from backbones import ConcatenatedEncoder, Encoder, LoRA, TextEncoder
from cli import class_names  # noqa: F401  short names
from run_store import UserError
from tests.backbones.conftest import save_tokenizer
from tests.backbones.encoding import gradients, one_by_one, texts_of

LENGTHS = [(5, 4), (1, 2), (9, 7), (2, 2), (9, 12)]
CONFIGS = Path(__file__).resolve().parents[2] / "configs" / "encoder"


@pytest.fixture(scope="module")
def giants(tmp_path_factory):
    """Folders of a Qwen2 1536 wide and of a JinaEmbeddingsV3 1024 wide."""
    torch.manual_seed(0)
    sizes = {"vocab_size": 40, "num_hidden_layers": 1, "intermediate_size": 64, "max_position_embeddings": 32}
    tokens = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    made = {
        "qodo": Qwen2Model(
            Qwen2Config(**sizes, **tokens, hidden_size=1536, num_attention_heads=12, num_key_value_heads=2)
        ),
        "jina": JinaEmbeddingsV3Model(JinaEmbeddingsV3Config(**sizes, **tokens, hidden_size=1024)),
    }
    folders = {}
    for name, model in made.items():
        folders[name] = str(tmp_path_factory.mktemp(name))
        model.save_pretrained(folders[name])
        save_tokenizer(folders[name])
    return folders


def parts(giants, **settings):
    common = {"precision": "float32", "tokens_at_once": 24, **settings}
    return [
        TextEncoder(giants["qodo"], pooling="last_token", is_causal=False, **common),
        TextEncoder(giants["jina"], pooling="mean", **common),
    ]


@pytest.fixture
def texts():
    return tuple(texts_of(list(column)) for column in zip(*LENGTHS, strict=True))


def test_both_make_one_vector_of_2560_dimensions_and_norm_1(giants, texts):
    encoder = ConcatenatedEncoder(parts(giants))
    assert encoder.width == 2560
    assert [tokenisation.tokenizer for tokenisation in encoder.tokenisations()] == [giants["qodo"], giants["jina"]]
    encoder.build()
    assert len(encoder.chunks(texts)) > 1
    embeddings = encoder.encode(texts)
    assert embeddings.shape == (5, 2560)
    torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(5))
    torch.testing.assert_close(embeddings, one_by_one(encoder, *texts), rtol=1e-5, atol=1e-5)
    assert [part["model"] for part in encoder.lineage()["encoders"]] == [giants["qodo"], giants["jina"]]


@pytest.mark.parametrize("normalize_parts", [True, False])
def test_its_cosines_are_the_weighted_mean_of_the_parts_cosines(giants, texts, normalize_parts):
    encoder = ConcatenatedEncoder(parts(giants, normalize=normalize_parts), weights=[3.0, 1.0])
    encoder.build()
    cosines = [
        cosine_similarity(vectors[:1], vectors)
        for vectors in (part.encode([own]) for part, own in zip(encoder.parts, texts, strict=True))
    ]
    embeddings = encoder.encode(texts)
    torch.testing.assert_close(cosine_similarity(embeddings[:1], embeddings), (3 * cosines[0] + cosines[1]) / 4)


def test_gradients_reach_both_parts(giants, texts):
    encoder = ConcatenatedEncoder(parts(giants, lora=LoRA(r=2), gradient_checkpointing=True))
    encoder.train()
    encoder.build()
    encoder.encode(texts)[:, ::100].sum().backward()
    assert {name.split(".")[1] for name in gradients(encoder)} == {"0", "1"}


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_qwen_looks_either_way_and_says_which(giants, attention):
    texts, found = texts_of([6, 6, 4, 1]), {}
    for is_causal in (None, True, False):
        encoder = TextEncoder(
            giants["qodo"], is_causal=is_causal, attention=attention, precision="float32", pooling="cls"
        )
        encoder.build()
        assert encoder.causal == (is_causal is not False)
        found[is_causal] = encoder.encode([texts])
        torch.testing.assert_close(found[is_causal], one_by_one(encoder, texts), rtol=1e-5, atol=1e-5)
    assert torch.equal(found[None], found[True])
    difference = (found[True] - found[False]).norm(dim=1)
    # The first of several tokens sees the others, or does not; one that is alone sees itself.
    assert (difference[:3] > 1e-3).all()
    assert difference[3] < 1e-5


def test_settings_that_make_no_sense_are_said(giants):
    with pytest.raises(UserError, match="weights has 1 numbers for 2 encoders"):
        ConcatenatedEncoder(parts(giants), weights=[1.0]).check_settings()
    with pytest.raises(UserError, match="encoders is empty"):
        ConcatenatedEncoder([]).check_settings()
    with pytest.raises(UserError, match="max_length 64 exceeds the 32 positions"):
        ConcatenatedEncoder(parts(giants, max_length=64)).check_settings()


@pytest.mark.parametrize("config", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_config_makes_an_encoder(config):
    parser = ArgumentParser()
    parser.add_argument("--encoder", type=Encoder, sub_configs=True)
    made = parser.instantiate(parser.parse_args(["--encoder", str(config)])).encoder
    assert type(made).__name__ == yaml.safe_load(config.read_text())["class_path"]
    if isinstance(made, ConcatenatedEncoder):
        alone = [yaml.safe_load((CONFIGS / f"{name}.yaml").read_text()) for name in ("qodo", "jina")]
        assert yaml.safe_load(config.read_text())["init_args"]["encoders"] == alone
        assert [part.model for part in made.parts] == ["Qodo/Qodo-Embed-1-1.5B", "jinaai/jina-embeddings-v3-hf"]
        assert [part.is_causal for part in made.parts] == [False, None]
    assert not list(made.parameters())


def test_a_part_is_normalised_whatever_it_was_asked(giants, texts):
    encoder = ConcatenatedEncoder(parts(giants, normalize=False))
    encoder.build()
    qodo = encoder.encode(texts)[:, :1536]
    torch.testing.assert_close(normalize(qodo, dim=1) * 0.5**0.5, qodo)
