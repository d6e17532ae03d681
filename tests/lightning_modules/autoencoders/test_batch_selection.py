"""The threshold that evaluation follows, on one process and on two."""

import pytest
import torch
from lightning.pytorch import Callback, Trainer

from datamodules.synthetic import FeatureSettings
from datamodules.synthetic_activations import SyntheticActivations
from lightning_modules.autoencoders import BatchTopK, MatryoshkaBatchTopK
from lightning_modules.functional import batch_topk
from lightning_modules.sparse_autoencoding import SparseAutoencoding

VARIANTS = pytest.mark.parametrize("variant", [BatchTopK, MatryoshkaBatchTopK])


def built(variant, d_sae=24, k=4, **settings):
    torch.manual_seed(0)
    model = variant(d_sae, k, **settings)
    model.build(6)
    with torch.no_grad():
        model.b_enc.normal_()
        model.b_dec.normal_()
    return model.double()


def pre_activations(model, x):
    return (x - model.b_dec) @ model.W_enc.T + model.b_enc


def least_kept(model, x):
    """The smallest positive of the k·b largest values."""
    f = pre_activations(model, x).relu().flatten()
    return min(value for value in sorted(f.tolist(), reverse=True)[: model.k * len(x)] if value > 0)


def uneven_rows(rows=10):
    return torch.randn(rows, 6, dtype=torch.float64) * torch.logspace(-2, 2, rows, dtype=torch.float64)[:, None]


@VARIANTS
def test_evaluation_keeps_what_exceeds_the_threshold_row_by_row(variant):
    model, x = built(variant).eval(), uneven_rows()
    model.threshold.fill_(0.7)
    z = pre_activations(model, x)
    expected = z * (z > 0.7)
    codes, reconstruction = model(x)
    torch.testing.assert_close(codes.dense(), expected)
    torch.testing.assert_close(reconstruction, expected @ model.W_dec + model.b_dec)
    torch.testing.assert_close(model(x[3:4])[0].dense(), expected[3:4])
    assert torch.equal(model.inference().threshold, torch.full((24,), 0.7, dtype=torch.float64))


@VARIANTS
@pytest.mark.parametrize("decay", [0.5, 0.999])
def test_the_threshold_averages_the_smallest_kept_values_and_is_state(variant, decay):
    model, expected = built(variant, threshold_decay=decay), 0.0
    for batch in range(30):
        x = uneven_rows()
        model.training_pass(x)
        expected += max(1 - decay, 10 / (10 + batch)) * (least_kept(model, x) - expected)
    assert model.threshold.item() == pytest.approx(expected)
    other = built(variant)
    other.load_state_dict(model.state_dict())
    assert torch.equal(other.eval()(x)[0].dense(), model.eval()(x)[0].dense())


@VARIANTS
def test_a_resumed_training_goes_on_with_the_same_threshold_to_the_bit(variant):
    straight, batches = built(variant), [uneven_rows() for _ in range(8)]
    for x in batches[:5]:
        straight.training_pass(x)
    resumed = built(variant)
    resumed.load_state_dict(straight.state_dict())
    for x in batches[5:]:
        straight.training_pass(x)
        resumed.training_pass(x)
    assert all(torch.equal(value, resumed.state_dict()[name]) for name, value in straight.state_dict().items())
    assert straight.selection.batches_seen == 8


@VARIANTS
def test_only_a_training_pass_with_finite_positive_values_moves_the_threshold(variant):
    model, x = built(variant), uneven_rows()
    model.training_pass(x)
    before = model.threshold.clone()
    model(x + 1)
    model.measure(x + 1, torch.tensor([1]))
    model.training_pass(torch.full_like(x, torch.nan))
    model.eval().training_pass(x + 1)
    model.train()
    with torch.no_grad():
        model.b_enc.fill_(-1e9)
    model.training_pass(x)
    assert torch.equal(model.threshold, before)
    assert model.selection.batches_seen == 1


@VARIANTS
def test_a_batch_that_is_not_finite_has_a_loss_that_is_not(variant):
    model, x = built(variant), uneven_rows()
    x[3, 2] = torch.nan
    assert not model.training_pass(x).terms["reconstruction"].value.isfinite()
    model = built(variant)
    with torch.no_grad():
        model.W_enc.fill_(torch.nan)
    assert not model.training_pass(uneven_rows()).terms["reconstruction"].value.isfinite()


@VARIANTS
def test_two_ranks_keep_what_one_process_keeps_and_agree_on_the_threshold(variant, on_ranks):
    batches = [uneven_rows(12)[torch.randperm(12)] for _ in range(6)]
    whole = built(variant)
    kept = [whole.training_pass(x).codes.dense().detach() for x in batches]

    def work(rank):
        model = built(variant)
        codes = [model.training_pass(x.chunk(2)[rank]).codes.dense().detach() for x in batches]
        return codes, model.threshold, model.selection.batches_seen

    (one, threshold, seen), (other, other_threshold, _) = on_ranks(work)
    for batch, expected in enumerate(kept):
        assert torch.equal(torch.cat([one[batch], other[batch]]) > 0, expected > 0)
        torch.testing.assert_close(torch.cat([one[batch], other[batch]]), expected)
    assert threshold == other_threshold
    torch.testing.assert_close(threshold, whole.threshold)
    assert seen == 6


# ---- under the Trainer


def trainer(folder, **more):
    defaults = {
        "max_epochs": 1,
        "accelerator": "cpu",
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
        "num_sanity_val_steps": 0,
        "default_root_dir": folder,
    }
    return Trainer(**{**defaults, **more})


def synthetic(steps):
    features = FeatureSettings(24, 48, mean_l0=4.0)
    return SyntheticActivations(features, 256, train_rows=256 * steps, validation_rows=0, test_rows=8192)


@pytest.mark.slow
@pytest.mark.parametrize(
    "make",
    [
        lambda: BatchTopK(48, 4),
        lambda: MatryoshkaBatchTopK(48, 4),
        lambda: MatryoshkaBatchTopK(48, 4, sampled_prefixes=3),
    ],
    ids=["batch_topk", "matryoshka", "matryoshka_sampled"],
)
def test_l0_of_new_rows_is_within_5_percent_of_k_and_nested_prefixes_are_good_by_themselves(make, tmp_path):
    model, data, fit = SparseAutoencoding(make(), sample_rows=4096), synthetic(200), trainer(tmp_path)
    fit.fit(model, data)
    scores = fit.test(model, data, verbose=False)[0]
    assert scores["test/l0"] == pytest.approx(4, rel=0.05)
    assert scores["test/fvu"] < 0.3
    x, autoencoder = model.only.pair(data.sample(8192).activations).x, model.autoencoder.eval()
    half = autoencoder(x)[0].dense()[:, :24] @ autoencoder.W_dec[:24] + autoencoder.b_dec
    fvu = (x - half).square().sum() / (x - autoencoder.mean).square().sum()
    assert (fvu < 0.4) == isinstance(autoencoder, MatryoshkaBatchTopK)


class Noted(Callback):
    """Writes down what each rank ends with."""

    def __init__(self, folder):
        self.folder = folder

    def on_train_end(self, trainer, pl_module):
        torch.save(dict(pl_module.only.state_dict()), self.folder / f"{trainer.global_rank}.pt")


@pytest.mark.slow
@VARIANTS
def test_two_processes_under_the_trainer_end_with_the_same_state(variant, tmp_path):
    torch.manual_seed(0)
    model = SparseAutoencoding(variant(48, 4), sample_rows=1024, dead_after_tokens=512)
    trainer(tmp_path, callbacks=[Noted(tmp_path)], devices=2, strategy="ddp_fork").fit(model, synthetic(8))
    one, other = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    assert one["autoencoder.selection.batches_seen"] == 8
    assert one["autoencoder.selection.threshold"] > 0
    assert all(torch.equal(value, other[name]) for name, value in one.items())


def test_a_rank_that_runs_out_of_memory_stops_both_with_the_sentence(tmp_path, monkeypatch):
    candidates = batch_topk._candidates

    def runs_out(*arguments):
        if torch.distributed.get_rank() == 1:
            torch.empty(2**56, dtype=torch.uint8)
        return candidates(*arguments)

    monkeypatch.setattr(batch_topk, "_candidates", runs_out)
    model = SparseAutoencoding(BatchTopK(48, 4), sample_rows=1024)
    with pytest.raises(Exception, match=r"BatchTopK selects over the whole batch.*lower data\.batch_size"):
        trainer(tmp_path, callbacks=[Noted(tmp_path)], devices=2, strategy="ddp_fork").fit(model, synthetic(8))
    assert not list(tmp_path.glob("*.pt"))
