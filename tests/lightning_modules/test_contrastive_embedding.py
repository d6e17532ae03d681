"""The fine-tuner: what it learns, what it measures, and that a resumed training is the same training."""

import json
import math

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from backbones import TextEncoder
from callbacks import AtomicCheckpointIO, RandomStates, SaveCheckpoints, TripletPreview
from datamodules.contrastive_triplets import TripletDataModule
from datamodules.triplets import HardNegatives, TripletColumns, TripletFiles
from lightning_modules.contrastive_embedding import ContrastiveEmbedding
from lightning_modules.functional import Binary, Cosine
from lightning_modules.losses import InfoNCE, Triplet
from run_store import UserError
from run_store.checkpoints import list_checkpoints

TOPICS = [f"t{i}" for i in range(12)]
WORDS = [f"w{i}" for i in range(24)]
ROWS = [
    {
        "anchor": f"{topic} {WORDS[i]} {WORDS[j]}",
        "positive": f"{WORDS[j]} {WORDS[j]} {topic} {topic}",
        "negative": f"{WORDS[i]} {WORDS[j]} {TOPICS[(TOPICS.index(topic) + 1) % 12]}",
    }
    for topic in TOPICS
    for i in range(3)
    for j in range(3, 6)
]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """The folder of a tiny BERT with dropout, whose tokens are TOPICS and WORDS."""
    folder = tmp_path_factory.mktemp("bert")
    names = ["[UNK]", "[CLS]", "[SEP]", *TOPICS, *WORDS]
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    BertModel(BertConfig(vocab_size=len(names), max_position_embeddings=16, **sizes)).save_pretrained(folder)
    words = Tokenizer(WordLevel({name: number for number, name in enumerate(names)}, unk_token="[UNK]"))
    words.pre_tokenizer = Whitespace()
    words.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)])
    PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]").save_pretrained(folder)
    return str(folder)


@pytest.fixture
def parts(tmp_path, model):
    """parts(loss, encoder settings, data settings, model settings) → module and datamodule."""
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))

    def make(loss=None, encoder=None, data=None, **settings):
        torch.manual_seed(0)
        chosen = {"precision": "float32", "linear_layers": "torch", "tokens_at_once": 64, **(encoder or {})}
        source = TripletFiles(str(tmp_path / "rows.jsonl"), TripletColumns())
        shares = {"batch_size": 8, "validation_share": 0.2, "test_share": 0.1, **(data or {})}
        datamodule = TripletDataModule(source, cache=str(tmp_path / "cache"), **shares)
        settings.setdefault("optimizer", lambda parameters: torch.optim.AdamW(parameters, lr=1e-2))
        return ContrastiveEmbedding(TextEncoder(model, **chosen), loss, **settings), datamodule

    return make


def trainer(folder, steps, *callbacks, **settings):
    return Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        max_steps=steps,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        callbacks=[*callbacks, RandomStates()],
        plugins=[AtomicCheckpointIO()],
        use_distributed_sampler=False,
        enable_checkpointing=any(isinstance(callback, SaveCheckpoints) for callback in callbacks),
        **settings,
    )


def weights(module):
    return {name: value.detach().clone() for name, value in module.encoder.state_dict().items()}


def demand_same(left, right):
    assert left.keys() == right.keys()
    assert all(torch.equal(left[name], right[name]) for name in left)


def test_a_model_of_which_nothing_is_trained_is_refused(tmp_path, parts):
    module, data = parts(encoder={"frozen_layers": 2}, measure_first=False)
    with pytest.raises(UserError, match=r"frozen_layers of model\.encoder leaves no weight to be trained: lower it"):
        trainer(tmp_path, 1).fit(module, data)


def test_gradients_of_a_fused_optimiser_are_clipped_under_bf16_mixed(tmp_path, parts):
    module, data = parts(measure_first=False, optimizer=lambda parameters: torch.optim.AdamW(parameters, fused=True))
    trainer(tmp_path, 2, precision="bf16-mixed", gradient_clip_val=1.0, limit_val_batches=0).fit(module, data)
    assert module.global_step == 2


@pytest.mark.first_is_fast
@pytest.mark.parametrize("loss", [InfoNCE(), Triplet()], ids=["info_nce", "triplet"])
def test_it_learns_and_says_what_it_has_gained(tmp_path, parts, loss):
    module, data = parts(loss, score_spaces={"short": Cosine(dimensions=8), "binary": Binary()})
    fit = trainer(tmp_path, 60)
    fit.fit(module, data)
    after = {name: float(value) for name, value in fit.callback_metrics.items()}
    before = module.scores_before
    assert before["val/triplet_accuracy"] < 0.9 < after["val/triplet_accuracy"]
    assert before["val/ndcg@10"] + 0.1 < after["val/ndcg@10"]
    assert after["train/loss"] < 1
    for name in (
        "mrr@10",
        "recall@10",
        "map",
        "short/ndcg@10",
        "binary/ndcg@10",
        "effective_rank",
        "mean_cosine",
        "norm",
    ):
        assert math.isfinite(after[f"val/{name}"])
        assert f"val/{name}" in before
    tested = fit.test(module, data, verbose=False)[0]
    assert tested["test/ndcg@10"] > 0


def test_what_it_measures_is_what_a_plain_loop_measures(tmp_path, parts):
    module, data = parts()
    fit = trainer(tmp_path, 3)
    fit.fit(module, data)
    measured = fit.validate(module, data, verbose=False)[0]
    table, rows = data.table("validation"), data.rows("validation")
    anchors, positives = torch.from_numpy(table.anchors[rows.numpy()]), torch.from_numpy(table.positives[rows.numpy()])
    task = data.retrieval("validation")
    queries, documents = module.embed(table.texts(task.queries)), module.embed(table.texts(task.documents))
    gains = []
    for query, vector in zip(task.queries, queries, strict=True):
        order = [int(task.documents[place]) for place in (documents @ vector).argsort(descending=True)]
        order = [document for document in order if document != int(query)]
        wanted = set(positives[anchors == query].tolist())
        dcg = sum(1 / math.log2(place + 2) for place, document in enumerate(order[:10]) if document in wanted)
        gains.append(dcg / sum(1 / math.log2(place + 2) for place in range(min(10, len(wanted)))))
    assert measured["val/ndcg@10"] == pytest.approx(sum(gains) / len(gains), abs=0.02)


def test_a_cache_of_gradients_takes_the_same_steps(tmp_path, parts):
    ends = []
    for cached in (False, True):
        module, data = parts(gradient_cache=cached)
        trainer(tmp_path, 3).fit(module, data)
        ends.append(weights(module))
    for name in ends[0]:
        torch.testing.assert_close(ends[0][name], ends[1][name], rtol=1e-3, atol=1e-4)


SETTINGS = {
    "plain": {},
    "dropout and cached gradients": {"encoder": {"dropout": True}, "gradient_cache": True},
    "guided": {"loss": InfoNCE(guide_margin=0.0)},
    "mined anew": {"data": {"mining": HardNegatives(count=2, refresh_every_n_epochs=1)}},
}


@pytest.mark.first_is_fast
@pytest.mark.parametrize("saved_at", [5, 8])
@pytest.mark.parametrize("name", SETTINGS)
def test_a_resumed_training_is_bit_for_bit_the_same(tmp_path, parts, name, saved_at):
    """8 steps are an epoch."""
    straight, data = parts(**SETTINGS[name])
    saving = SaveCheckpoints(every_n_steps=saved_at)
    trainer(tmp_path / "straight", -1, saving, max_epochs=2).fit(straight, data)
    saved = list_checkpoints(tmp_path / "straight" / "checkpoints")[0]
    assert saved.step == saved_at
    resumed, data = parts(**SETTINGS[name])
    torch.manual_seed(77)  # all must come from the checkpoint
    trainer(tmp_path / "resumed", -1, max_epochs=2).fit(resumed, data, ckpt_path=str(saved.path), weights_only=True)
    demand_same(weights(straight), weights(resumed))
    assert resumed.scores_before == straight.scores_before != {}


class Poisoned(Callback):
    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step == 2:
            with torch.no_grad():
                next(pl_module.encoder.parameters()).fill_(math.nan)


def test_a_loss_that_is_no_number_names_an_example(tmp_path, parts):
    module, data = parts()
    with pytest.raises(UserError, match=r"the loss became nan at step 2 \(its first example: .*rows\.jsonl:\d+\)"):
        trainer(tmp_path, 5, Poisoned()).fit(module, data)


def test_the_preview_changes_nothing(tmp_path, parts, capsys):
    ends = []
    for previews in ([], [TripletPreview()]):
        module, data = parts(encoder={"dropout": True})
        trainer(tmp_path, 4, *previews).fit(module, data)
        ends.append(weights(module))
    demand_same(*ends)
    told = capsys.readouterr().out
    for line in ("examples to train on", "truncated", "padding:", "already satisfied:", "predicted speed:"):
        assert line in told


def test_what_is_shown_of_the_held_out_texts(tmp_path, parts):
    module, data = parts()
    trainer(tmp_path, 2).fit(module, data)
    shown = module.validation_embeddings(12)
    assert shown.embeddings.shape == (len(shown.texts), 16)
    assert set(shown.roles) == {"anchor", "positive", "negative"}
    assert all(set(text.split()) <= {"[CLS]", "[SEP]", *TOPICS, *WORDS} for text in shown.texts)
    again = module.validation_embeddings(12)
    assert again.texts == shown.texts
    similarities = module.validation_similarities()
    assert len(similarities.positives) == len(data.rows("validation"))


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"encoder": {"max_length": 99}}, "max_length 99"),
        ({"loss": Triplet(margin=3.0)}, "margin"),
        ({"optimizer": lambda parameters: torch.optim.AdamW(parameters, lr=0.0)}, "model.optimizer.lr"),
    ],
)
def test_impossible_settings_are_refused_before_any_data_is_touched(parts, settings, sentence):
    module, _ = parts(**settings)
    with pytest.raises(UserError, match=sentence):
        module.check_settings()
