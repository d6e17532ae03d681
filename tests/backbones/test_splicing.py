"""Models read to their end with other vectors at their hook points, against hooks set by hand."""

import pytest
import torch
from transformers import AutoModelForCausalLM, BertConfig, BertLMHeadModel, GPTNeoXConfig, LlamaConfig

from backbones import Extractor, SplicedModel, has_language_head, load_backbone
from backbones.hook_points import HookPoint, run_through
from datamodules.text import TokenBatch
from run_store import UserError

SIZES = {
    "vocab_size": 40,
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 16,
}
EVERYWHERE = ["residual.*", "attention.*", "mlp.*"]


@pytest.fixture(scope="module")
def language_models(models, tmp_path_factory):
    """Folders of language models of three families with their heads; that of gpt2 is tied to its embeddings."""
    folders = {"gpt2": models["gpt2"]}
    for config in (LlamaConfig(**SIZES, tie_word_embeddings=False), GPTNeoXConfig(**SIZES)):
        torch.manual_seed(0)
        folders[config.model_type] = str(tmp_path_factory.mktemp(config.model_type))
        AutoModelForCausalLM.from_config(config).save_pretrained(folders[config.model_type])
    return folders


def make_batch(lengths=(10, 10, 7)):
    """Contexts that begin with a special token, the shorter ones padded."""
    longest = max(lengths)
    tokens = torch.randint(3, 40, (len(lengths), longest))
    tokens[:, 0] = 1
    real = torch.arange(longest) < torch.tensor(lengths)[:, None]
    positions = (torch.arange(longest) - 1).expand_as(tokens).where(real, -1)
    return TokenBatch(tokens, torch.zeros_like(tokens), positions, torch.tensor(lengths))


def extractor(model, hook_points=EVERYWHERE, **settings):
    return Extractor(model, **{"hook_points": hook_points, "precision": "float32", "device": "cpu", **settings})


@torch.inference_mode()
def logits_by_hand(folder, batch, path=None, hook=None):
    """Of transformers' own model, with a forward hook at a module if one is named."""
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    handle = model.get_submodule(path).register_forward_hook(hook) if path else None
    real = torch.arange(batch.tokens.shape[1]) < batch.lengths[:, None]
    logits = model(input_ids=batch.tokens.where(real, 0), attention_mask=real.long()).logits
    if handle is not None:
        handle.remove()
    return logits


@pytest.mark.parametrize("family", ["gpt2", "llama", "gpt_neox"])
def test_the_activations_themselves_give_the_clean_logits_at_every_hook_point(language_models, family):
    batch, model = make_batch(), SplicedModel(extractor(language_models[family]), language_head=True)
    clean = model.read(batch)
    assert torch.equal(clean.output, logits_by_hand(language_models[family], batch))
    assert len(clean.rows) == 4 + 3 + 3
    for name, rows in clean.rows.items():
        assert torch.equal(model.splice(batch, clean.kept, {name: rows}), clean.output), name
    assert torch.equal(model.splice(batch, clean.kept, clean.rows), clean.output)


@pytest.mark.parametrize("name", ["bert", "t5"])
def test_the_activations_themselves_give_the_clean_hidden_states(models, name):
    batch, model = make_batch(), SplicedModel(extractor(models[name]), language_head=False)
    clean = model.read(batch)
    assert clean.output.shape == (3, 10, 16)
    for point, rows in clean.rows.items():
        assert torch.equal(model.splice(batch, clean.kept, {point: rows}), clean.output), point


@pytest.mark.parametrize(
    ("family", "hook_point", "path"),
    [
        ("gpt2", "residual.2", "transformer.h.1"),
        ("gpt2", "h.1.attn", "transformer.h.1.attn"),
        ("llama", "residual.2", "model.layers.1"),
        ("llama", "mlp.1", "model.layers.0.mlp"),
        ("gpt_neox", "attention.3", "gpt_neox.layers.2.attention"),
    ],
)
def test_zero_ablation_is_that_of_a_hook_set_by_hand(language_models, family, hook_point, path):
    batch = make_batch()
    model = SplicedModel(extractor(language_models[family], [hook_point]), language_head=True)
    clean = model.read(batch)
    assert torch.equal(clean.kept, batch.positions >= 0)  # no special token, no padding

    def zero(module, arguments, output):
        hidden = (output[0] if isinstance(output, tuple) else output).clone()
        for context, length in enumerate(batch.lengths):
            hidden[context, 1:length] = 0
        return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

    ablated = model.splice(batch, clean.kept, {hook_point: torch.zeros(16)})
    assert torch.equal(ablated, logits_by_hand(language_models[family], batch, path, zero))
    assert not torch.allclose(ablated[:, 1:], clean.output[:, 1:])
    # a special token that stands before all others sees none of them
    assert torch.allclose(ablated[:, 0], clean.output[:, 0])


def test_what_enters_a_module_is_replaced_as_what_left_the_one_before(language_models):
    batch = make_batch()
    model = SplicedModel(extractor(language_models["gpt2"], ["h.1:input", "residual.1"]), language_head=True)

    # the same place twice, under two names
    clean = model.read(batch)
    new = torch.randn_like(clean.rows["residual.1"])
    one, other = (model.splice(batch, clean.kept, {name: new}) for name in ("h.1:input", "residual.1"))
    assert torch.equal(one, other)
    assert not torch.allclose(one, clean.output)


def test_only_tokens_that_give_rows_are_replaced(language_models):
    batch = make_batch()
    settings = {"keep_special_tokens": True, "positions": [0, -1]}
    model = SplicedModel(extractor(language_models["llama"], ["residual.3"], **settings), language_head=True)
    clean = model.read(batch)
    assert clean.kept.nonzero().tolist() == [[0, 0], [0, 9], [1, 0], [1, 9], [2, 0], [2, 6]]
    changed = model.splice(batch, clean.kept, {"residual.3": torch.ones(16)}) != clean.output
    assert torch.equal(changed.any(dim=2), clean.kept)  # after the last layer tokens no longer meet


def test_outliers_are_left_as_they_are(language_models):
    batch = make_batch()
    model = SplicedModel(extractor(language_models["gpt2"], ["residual.1"], max_norm_ratio=1.0), language_head=True)
    clean = model.read(batch)
    content = int((batch.positions >= 0).sum())
    assert 0 < len(clean.rows["residual.1"]) == int(clean.kept.sum()) < content
    assert torch.equal(model.splice(batch, clean.kept, clean.rows), clean.output)


def test_the_extractor_keeps_its_own_model_and_counts(language_models):
    reader = extractor(language_models["gpt2"], ["residual.1"])
    before = reader.load()
    SplicedModel(reader, language_head=True).read(make_batch())
    assert reader.load() is before
    assert reader.counts.kept == 0


def test_bfloat16_is_what_the_extractor_computes_in(language_models):
    batch, exact = make_batch(), extractor(language_models["gpt2"], ["residual.1"])
    rounded = extractor(language_models["gpt2"], ["residual.1"], precision="bfloat16")
    one, other = (SplicedModel(reader, language_head=True).read(batch) for reader in (exact, rounded))
    assert other.output.dtype == torch.bfloat16
    assert {rows.dtype for rows in other.rows.values()} == {torch.float32}
    torch.testing.assert_close(other.output.float(), one.output, atol=0.03, rtol=0.05)


def test_which_models_were_saved_with_a_head_that_predicts_the_next_token(models, language_models, tmp_path):
    assert all(map(has_language_head, language_models.values()))
    assert not any(has_language_head(models[name]) for name in ("bert", "t5"))
    load_backbone(models["gpt2"]).save_pretrained(tmp_path / "headless")
    assert not has_language_head(str(tmp_path / "headless"))


@pytest.mark.parametrize("is_decoder", [True, False])
def test_a_bert_reads_one_way_only_when_it_says_so(tmp_path, is_decoder):
    BertLMHeadModel(BertConfig(**SIZES, is_decoder=is_decoder)).save_pretrained(tmp_path)
    assert has_language_head(str(tmp_path)) is is_decoder


def test_a_head_that_was_not_saved_is_not_made_up(language_models, tmp_path):
    load_backbone(language_models["llama"]).save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"lacks 1 of its weights \(lm_head\.weight"):
        SplicedModel(extractor(str(tmp_path)), language_head=True).read(make_batch())


class Bag(torch.nn.Module):
    """Returns its states in a mapping, a list, or by keyword, as some models do."""

    def __init__(self):
        super().__init__()
        self.inner = Inner()

    def forward(self, input_ids):
        states = input_ids.unsqueeze(2).float()
        given = self.inner(hidden_states=states, more=1)
        return given["states"] + given["rest"]


class Inner(torch.nn.Module):
    def forward(self, hidden_states, more):
        return {"states": hidden_states * 2, "rest": torch.ones(1)}


@pytest.mark.parametrize(("side", "expected"), [("input", 2 * 7.0 + 1), ("output", 7.0 + 1)])
def test_modules_that_take_keywords_and_return_mappings_are_spliced(side, expected):
    model, seen = Bag(), []

    def visit(name, passing):
        seen.append((name, passing.clone()))
        return torch.full_like(passing, 7.0)

    tokens = torch.arange(6).reshape(2, 3)
    output = run_through(model, {"here": HookPoint(model.inner, side)}, visit, {"input_ids": tokens})
    assert torch.equal(output, torch.full((2, 3, 1), expected))
    ((name, passing),) = seen
    assert name == "here"
    assert torch.equal(passing.squeeze(2), tokens.float() * (1 if side == "input" else 2))
