"""Code that comes with a model: never run unless the model is named for it."""

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from transformers import dynamic_module_utils

from backbones import Extractor, SplicedModel, has_language_head, load_backbone
from backbones.loading import code_sha256
from datamodules.text import TokenBatch
from run_store import UserError

# A bag of words that leaves a trace where it is run.
CODE = """
import pathlib

import torch
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutput

pathlib.Path(TRACE).touch()


class BagConfig(PretrainedConfig):
    model_type = "bag_of_words"

    def __init__(self, vocab_size=40, hidden_size=8, **others):
        super().__init__(**others)
        self.vocab_size, self.hidden_size = vocab_size, hidden_size


class BagModel(PreTrainedModel):
    config_class = BagConfig

    def __init__(self, config):
        super().__init__(config)
        self.words = torch.nn.Embedding(config.vocab_size, config.hidden_size)
        self.post_init()

    def get_input_embeddings(self):
        return self.words

    def forward(self, input_ids, attention_mask=None):
        return (self.words(input_ids),)


class BagForCausalLM(BagModel):
    def forward(self, input_ids, attention_mask=None):
        return CausalLMOutput(logits=self.words(input_ids) @ self.words.weight.T)
"""


@pytest.fixture
def bag(tmp_path, monkeypatch):
    """A folder with a model that transformers does not know; `trace` beside it appears when its code is run."""
    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr(sys, "path", [*sys.path])
    folder = tmp_path / "bag"
    folder.mkdir()
    classes = {"AutoConfig": "modeling_bag.BagConfig", "AutoModel": "modeling_bag.BagModel"}
    write_config(folder, model_type="bag_of_words", vocab_size=40, hidden_size=8, auto_map=classes)
    (folder / "modeling_bag.py").write_text(CODE.replace("TRACE", repr(str(tmp_path / "trace"))))
    save_file({"words.weight": torch.randn(40, 8)}, folder / "model.safetensors", {"format": "pt"})
    return folder


def write_config(folder, **settings):
    file = folder / "config.json"
    before = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps(before | settings))


def test_code_is_not_run_unasked_and_the_refusal_says_what_would_run(bag):
    with pytest.raises(UserError) as refusal:
        load_backbone(str(bag))
    assert str(refusal.value) == (
        f"model '{bag}' needs Python code of its own (modeling_bag.py), which would run on this machine: read it, then "
        f"set remote_code_of to '{bag}', or choose a model that transformers knows"
    )
    assert not (bag.parent / "trace").exists()


@pytest.mark.parametrize("name", ["true", "another/model", "bag", ""])
def test_another_name_than_the_models_does_not_run_it(bag, name):
    with pytest.raises(UserError, match=f"remote_code_of names '{name}', but the model is '{bag}'"):
        load_backbone(str(bag), remote_code_of=name)
    assert not (bag.parent / "trace").exists()


def test_code_is_run_when_the_model_is_named(bag):
    extractor = Extractor(str(bag), ["w*"], remote_code_of=str(bag), device="cpu")
    assert extractor.shapes() == {"words": 8}
    assert type(extractor.load()).__name__ == "BagModel"
    assert (bag.parent / "trace").exists()


def a_batch():
    tokens = torch.arange(6).reshape(2, 3)
    return TokenBatch(tokens, torch.zeros_like(tokens), torch.arange(3).expand(2, 3), torch.tensor([3, 3]))


def test_code_with_a_language_head_is_spliced_by_the_names_that_it_has(bag):
    assert not has_language_head(str(bag), remote_code_of=str(bag))
    heads = {"AutoConfig": "modeling_bag.BagConfig", "AutoModelForCausalLM": "modeling_bag.BagForCausalLM"}
    write_config(bag, auto_map=heads)
    assert has_language_head(str(bag), remote_code_of=str(bag))
    model = SplicedModel(Extractor(str(bag), ["words"], remote_code_of=str(bag), device="cpu"), language_head=True)
    clean = model.read(a_batch())
    assert clean.output.shape == (2, 3, 40)
    assert not model.splice(a_batch(), clean.kept, {"words": torch.zeros(8)}).any()


def test_code_that_gives_neither_logits_nor_hidden_states_by_name_is_said(bag):
    model = SplicedModel(Extractor(str(bag), ["words"], remote_code_of=str(bag), device="cpu"), language_head=False)
    with pytest.raises(UserError, match=f"model '{bag}' returns no last hidden states: set the callback's `measure`"):
        model.read(a_batch())


def test_the_code_is_part_of_the_description(bag):
    extractor = Extractor(str(bag), ["words"], remote_code_of=str(bag), device="cpu")
    before = extractor.describe()["remote_code_sha256"]
    assert before == code_sha256(str(bag))
    with (bag / "modeling_bag.py").open("a") as file:
        file.write("# changed\n")
    assert extractor.describe()["remote_code_sha256"] != before


def test_code_in_another_repository_is_not_run(bag):
    write_config(bag, auto_map={"AutoModel": "another/place--modeling.Model"})
    with pytest.raises(UserError, match=r"asks for code from elsewhere \(another/place--modeling.Model\)"):
        load_backbone(str(bag), remote_code_of=str(bag))


def test_broken_code_is_said(bag):
    (bag / "modeling_bag.py").write_text("import a_library_that_nobody_has\n")
    with pytest.raises(UserError, match=f"code of model '{bag}' cannot be loaded .*a_library_that_nobody_has"):
        load_backbone(str(bag), remote_code_of=str(bag))


def test_a_model_that_transformers_knows_needs_none_of_its_code(models, tmp_path):
    folder = Path(shutil.copytree(models["bert"], tmp_path / "bert"))
    (folder / "code.py").write_text(f"import pathlib\npathlib.Path({str(tmp_path / 'trace')!r}).touch()\n")
    write_config(folder, auto_map={"AutoModel": "code.Model"})
    assert type(load_backbone(str(folder))).__module__.startswith("transformers.models.bert")
    assert not (tmp_path / "trace").exists()


def test_a_model_without_code_is_said(models):
    with pytest.raises(UserError, match="carries no code of its own: set remote_code_of to null"):
        load_backbone(models["bert"], remote_code_of=models["bert"])
