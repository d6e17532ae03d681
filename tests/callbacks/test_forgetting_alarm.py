import logging

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.nn.functional import cosine_similarity

from backbones import TextEncoder
from callbacks import AtomicCheckpointIO, ForgettingAlarm, SaveCheckpoints
from datamodules.contrastive_triplets import TripletDataModule
from datamodules.text import Corpus, Document
from datamodules.triplets import TripletFiles
from exports import load_autoencoder
from lightning_modules.autoencoders import TopK
from lightning_modules.contrastive_embedding import ContrastiveEmbedding
from lightning_modules.sparse_autoencoding import SparseAutoencoding
from run_store import UserError
from run_store.checkpoints import list_checkpoints
from tests.callbacks.small_models import WIDTH, activations, trainer
from tests.distributed.ranks import ddp, on_ranks
from tests.explanations.final_states import exported

TEXTS = ["one plain sentence", "rain in the afternoon", "ab", "they sold it last year", "and then nothing"]


SAVING = {"enable_checkpointing": True, "plugins": [AtomicCheckpointIO()]}


class Texts(Corpus):
    def __init__(self, texts=TEXTS):
        self.texts = texts

    def documents(self):
        for number, text in enumerate(self.texts):
            yield Document(f"text-{number}", text)

    def describe(self):
        return {}


@pytest.fixture(scope="session")
def dictionary(tmp_path_factory):
    return exported(tmp_path_factory.mktemp("dictionaries") / "final", WIDTH)


@pytest.fixture
def embedder(products, tmp_path):
    """embedder(lr, share) → a small model and its data."""

    def make(lr=1e-2, share=0.3):
        torch.manual_seed(0)
        encoder = TextEncoder(str(products / "bert"), max_length=32, precision="float32", pooling="mean")
        source = TripletFiles(str(products / "rows.jsonl"))
        data = TripletDataModule(source, 8, validation_share=share, cache=str(products / "cache"))
        optimizer = lambda parameters: torch.optim.AdamW(parameters, lr=lr)  # noqa: E731
        return ContrastiveEmbedding(encoder, optimizer=optimizer), data

    return make


class Curves(Callback):
    """What was logged after each epoch."""

    def __init__(self):
        self.seen = []

    def on_train_epoch_end(self, trainer, pl_module):
        logged = trainer.callback_metrics
        self.seen.append({name: float(logged[name]) for name in sorted(logged) if name.startswith("forgetting/")})


def fitted(folder, parts, alarm, *others, resume=None, **settings):
    # behind the alarm, which logs at the end of an epoch where nothing is held out
    curves = Curves()
    if any(isinstance(callback, SaveCheckpoints) for callback in others) or resume:
        settings |= SAVING
    fit = trainer(folder, alarm, *others, curves, **settings)
    model, data = parts
    fit.fit(model, data, ckpt_path=resume)
    return curves.seen, model


def test_a_model_that_is_not_moved_has_a_drift_of_zero(dictionary, embedder, tmp_path):
    (first, second), _ = fitted(tmp_path, embedder(lr=0.0), ForgettingAlarm(dictionary, Texts(), stop_above=1e-9))
    assert first == second
    assert (first["forgetting/drift"], first["forgetting/lost"], first["forgetting/gained"]) == (0, 0, 0)
    assert first["forgetting/cosine"] == pytest.approx(1)


def test_a_text_without_tokens_is_not_taken_for_a_forgotten_one(dictionary, embedder, tmp_path):
    (first, _), _ = fitted(tmp_path, embedder(lr=0.0), ForgettingAlarm(dictionary, Texts(["", "ab", ""])))
    assert first["forgetting/cosine"] == pytest.approx(1)
    with pytest.raises(UserError, match="the corpus of callback ForgettingAlarm has no text"):
        fitted(tmp_path, embedder(), ForgettingAlarm(dictionary, Texts([""])))


def test_figures_are_those_of_the_texts_read_one_by_one(dictionary, embedder, tmp_path):
    alarm = ForgettingAlarm(dictionary, Texts(), count=4, column="anchor")
    sae = load_autoencoder(dictionary)

    def read(model, data):
        means, embeddings, rows, missed = torch.zeros(24).double(), [], [], 0.0
        for text in TEXTS[:4]:
            ids = data.tokenised([text], "anchor")[0].tokens.long().unsqueeze(0)
            with torch.no_grad():
                states = model.encoder.backbone(input_ids=ids).last_hidden_state[0]
                codes, (reconstruction,) = sae(states)
            means += codes.dense().double().sum(dim=0)
            embeddings.append(states.mean(dim=0))
            rows.append(states)
            missed += float((states - reconstruction).square().sum())
        every = torch.cat(rows)
        fvu = missed / float((every - every.mean(dim=0)).square().sum())
        return means / len(every), torch.stack(embeddings), fvu

    class AtTheStart(Callback):
        def on_train_start(self, trainer, pl_module):
            pl_module.eval()
            self.read = read(pl_module, pl_module.data)
            pl_module.train()

    start, parts = AtTheStart(), embedder()
    (*_, last), model = fitted(tmp_path, parts, alarm, start)
    (base, base_embeddings, _), (now, embeddings, fvu) = start.read, read(model.eval(), parts[1])
    change = now - base
    assert last["forgetting/lost"] == pytest.approx(float(-change.clamp_max(0).sum() / base.sum()), rel=1e-4)
    assert last["forgetting/gained"] == pytest.approx(float(change.clamp_min(0).sum() / base.sum()), rel=1e-4)
    assert last["forgetting/drift"] == pytest.approx(last["forgetting/lost"] + last["forgetting/gained"])
    assert last["forgetting/drift"] > 0.01
    assert last["forgetting/fvu"] == pytest.approx(fvu, rel=1e-4)
    cosine = float(cosine_similarity(base_embeddings, embeddings).mean())
    assert last["forgetting/cosine"] == pytest.approx(cosine, abs=1e-5)


def test_looking_changes_nothing_in_the_training(dictionary, embedder, tmp_path):
    plain = trainer(tmp_path)
    model, data = embedder()
    plain.fit(model, data)
    _, watched = fitted(tmp_path, embedder(), ForgettingAlarm(dictionary, Texts()))
    assert all(torch.equal(value, watched.state_dict()[name]) for name, value in model.state_dict().items())


def test_a_resumed_training_logs_what_an_uninterrupted_one_does(dictionary, embedder, tmp_path):
    saves = [SaveCheckpoints(every_n_steps=4)]
    straight, _ = fitted(tmp_path / "straight", embedder(), ForgettingAlarm(dictionary, Texts()), *saves, max_epochs=3)
    first = list_checkpoints(tmp_path / "straight" / "checkpoints")[0].path
    again = ForgettingAlarm(dictionary, Texts())
    resumed, _ = fitted(tmp_path / "resumed", embedder(), again, resume=str(first), max_epochs=3)
    assert resumed == straight[-len(resumed) :]
    assert len(resumed) == 2


@pytest.mark.slow
def test_a_resumed_training_refuses_other_texts_and_a_base_that_nobody_has_seen(dictionary, embedder, tmp_path):
    save = SaveCheckpoints(every_n_steps=4)
    fitted(tmp_path, embedder(), ForgettingAlarm(dictionary, Texts()), save, max_epochs=1)
    saved = str(list_checkpoints(tmp_path / "checkpoints")[0].path)
    other = ForgettingAlarm(dictionary, Texts(TEXTS[1:]))
    with pytest.raises(UserError, match="texts of callback ForgettingAlarm is not what the run began with"):
        fitted(tmp_path / "other", embedder(), other, resume=saved)
    wider = exported(tmp_path / "wider", WIDTH, d_sae=30)
    with pytest.raises(UserError, match="autoencoder of callback ForgettingAlarm is not what"):
        fitted(tmp_path / "other", embedder(), ForgettingAlarm(wider, Texts()), resume=saved)

    bare = trainer(tmp_path / "bare", SaveCheckpoints(every_n_steps=4), max_epochs=1, **SAVING)
    bare.fit(*embedder())
    saved = str(list_checkpoints(tmp_path / "bare" / "checkpoints")[0].path)
    with pytest.raises(UserError, match="does not know what callback ForgettingAlarm saw in the base"):
        fitted(tmp_path / "late", embedder(), ForgettingAlarm(dictionary, Texts()), resume=saved)


@pytest.mark.slow
def test_several_alarms_watch_several_kinds_of_text_and_resume_apart(dictionary, embedder, tmp_path):
    def both():
        return ForgettingAlarm(dictionary, Texts()), ForgettingAlarm(dictionary, Texts(TEXTS[2:]), name="code")

    seen = []

    class CurvesOfCode(Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            seen.append(float(trainer.callback_metrics["code/drift"]))

    general, code = both()
    straight, _ = fitted(tmp_path, embedder(), general, code, CurvesOfCode(), SaveCheckpoints(every_n_steps=4))
    first = list_checkpoints(tmp_path / "checkpoints")[0].path
    general, code = both()
    resumed, _ = fitted(tmp_path / "resumed", embedder(), general, code, CurvesOfCode(), resume=str(first))
    assert resumed == straight[1:]
    assert seen[1] == seen[2]
    assert seen[1] != straight[1]["forgetting/drift"]


@pytest.mark.parametrize("share", [0.3, 0.0])
def test_a_training_that_forgets_is_stopped_after_the_first_epoch(dictionary, embedder, tmp_path, share):
    alarm = ForgettingAlarm(dictionary, Texts(), stop_above=0.001, stop_below_cosine=0.999999)
    with pytest.raises(UserError) as error:
        fitted(tmp_path, embedder(share=share), alarm)
    message = str(error.value)
    assert message.startswith("at step 4 callback ForgettingAlarm finds its texts forgotten: the latents' drift is")
    assert "(stop_above is 0.001) and the mean cosine with the base is" in message
    assert "most of all latent " in message


def test_without_limits_it_only_tells(dictionary, embedder, tmp_path):
    seen, _ = fitted(tmp_path, embedder(share=0.0), ForgettingAlarm(dictionary, Texts()))
    assert len(seen) == 2
    assert seen[1]["forgetting/drift"] != seen[0]["forgetting/drift"]


def test_tensorboard_has_curves_from_step_0_and_a_table_of_the_latents_that_changed_most(
    dictionary, embedder, tmp_path, caplog
):
    # a text that repeats itself gives its latents a label
    texts = Texts(["zzzz zzzz zzzz zzzz"] * 3 + TEXTS)
    logger = TensorBoardLogger(tmp_path, name="", version="")
    with caplog.at_level(logging.INFO, "lightning.pytorch.utilities.rank_zero"):
        fitted(tmp_path, embedder(), ForgettingAlarm(dictionary, texts, latents=5), logger=logger, max_epochs=1)
    assert "ForgettingAlarm read 8 texts of" in caplog.text
    events = EventAccumulator(str(tmp_path)).Reload()
    drift = events.Scalars("forgetting/drift")
    assert (drift[0].step, drift[0].value) == (0, 0)
    assert drift[1].value > 0
    (table,) = events.Tensors("forgetting/latents that changed most/text_summary")
    lines = table.tensor_proto.string_val[0].decode().splitlines()
    assert len(lines) == 2 + 5
    shares = [float(line.split("|")[3].strip().removesuffix("%")) for line in lines[2:]]
    assert shares == sorted(shares, reverse=True)
    assert any(line.split("|")[2].strip() for line in lines[2:])


def test_what_cannot_be_watched_is_refused(dictionary, embedder, products, tmp_path):
    data = activations(str(products / "gpt2"), products / "store", ["residual.1"])
    with pytest.raises(UserError, match="watches text encoders, and the model is a SparseAutoencoding"):
        fitted(tmp_path, (SparseAutoencoding(TopK(48, 4)), data), ForgettingAlarm(dictionary, Texts()))
    with pytest.raises(UserError, match="nowhere"):
        fitted(tmp_path, embedder(), ForgettingAlarm("nowhere", Texts(), folder=str(tmp_path)))
    with pytest.raises(UserError, match="corpus of callback ForgettingAlarm has no text"):
        fitted(tmp_path, embedder(), ForgettingAlarm(dictionary, Texts([])))


def test_a_dictionary_of_other_states_is_warned_of(dictionary, embedder, tmp_path):
    with pytest.warns(UserWarning, match="of the variance of the base's states, so its latents say little"):
        fitted(tmp_path, embedder(), ForgettingAlarm(dictionary, Texts()), max_epochs=1)


@pytest.mark.slow
def test_two_ranks_tell_what_one_does_and_stop_together(dictionary, embedder, tmp_path):
    def seen(rank, devices=2):
        torch.set_num_threads(1)

        def fit(alarm):
            settings = {"strategy": ddp(), "devices": devices} if devices > 1 else {}
            return fitted(tmp_path, embedder(lr=0.05), alarm, limit_train_batches=2, **settings)

        curves, _ = fit(ForgettingAlarm(dictionary, Texts()))
        try:
            fit(ForgettingAlarm(dictionary, Texts(), stop_above=0.001))
        except UserError as error:
            return {"curves": curves, "stopped": str(error).partition(":")[0]}

    alone = seen(0, 1)
    ranks = on_ranks(seen)
    assert ranks[0] == ranks[1]
    assert ranks[0]["stopped"] == alone["stopped"]
    for here, there in zip(alone["curves"], ranks[0]["curves"], strict=True):
        assert there == pytest.approx(here, rel=1e-3)
