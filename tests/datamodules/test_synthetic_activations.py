"""Synthetic truth through the real Trainer."""

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from callbacks import AtomicCheckpointIO, DictionaryRecovery
from cli import main
from datamodules.shards import Rank
from datamodules.synthetic import Constant, CorrelatedGroups, FeatureSettings, Forest
from datamodules.synthetic_activations import SyntheticActivations
from lightning_modules.autoencoders import TopK
from lightning_modules.functional import best_matching
from lightning_modules.sparse_autoencoding import SparseAutoencoding
from run_store import UserError

SMALL = FeatureSettings(d=12, count=24, mean_l0=2.0, hierarchy=Forest(2, 2), correlation=CorrelatedGroups(2, 2))


def data(features=SMALL, **settings):
    sizes = {"batch_size": 64, "train_rows": 1700, "validation_rows": 300, "test_rows": 200}
    return SyntheticActivations(features, **{**sizes, **settings})


def trainer(folder, **settings):
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    defaults = {"max_epochs": 2, "accelerator": "cpu", "enable_checkpointing": False, "num_sanity_val_steps": 0}
    return Trainer(**{**quiet, **defaults, "plugins": [AtomicCheckpointIO()], "default_root_dir": folder, **settings})


def module(autoencoder=None, **settings):
    torch.manual_seed(0)
    return SparseAutoencoding(autoencoder or TopK(32, 3), **settings)


class Rows(Callback):
    """Remembers the rows of every batch."""

    def __init__(self):
        self.trained, self.validated, self.tested = [], [], []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.trained.append(batch.rows)

    def on_validation_batch_end(self, trainer, pl_module, outputs, batch, *_):
        self.validated.append(batch.rows)

    def on_test_batch_end(self, trainer, pl_module, outputs, batch, *_):
        self.tested.append(batch.rows)


def test_no_row_is_trained_on_twice_nor_measured_on(tmp_path):
    rows, model, source = Rows(), module(), data()
    fit = trainer(tmp_path, callbacks=[rows, DictionaryRecovery()])
    fit.fit(model, source)
    fit.test(model, source, verbose=False)
    trained = torch.cat(rows.trained)
    assert len(rows.trained) == 2 * (1700 // 64)
    assert len(trained.unique()) == len(trained)
    held_out = torch.cat(rows.validated).unique(), torch.cat(rows.tested).unique()
    assert [len(part) for part in held_out] == [300, 200]
    assert len(torch.cat([trained, *held_out]).unique()) == len(trained) + 500


@pytest.mark.first_is_fast
@pytest.mark.parametrize("stop_after", [11, 26, 30])
def test_a_resumed_run_is_bit_identical_to_an_uninterrupted_one(tmp_path, stop_after):
    straight = module()
    trainer(tmp_path).fit(straight, data())
    saver = ModelCheckpoint(tmp_path, every_n_train_steps=stop_after, filename="{step}", save_top_k=-1)
    trainer(tmp_path, enable_checkpointing=True, callbacks=[saver]).fit(module(), data())
    resumed = module()
    torch.manual_seed(99)
    trainer(tmp_path).fit(resumed, data(), ckpt_path=tmp_path / f"step={stop_after}.ckpt")
    for name, value in straight.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_a_resume_with_other_features_is_refused_by_name(tmp_path):
    saver = ModelCheckpoint(tmp_path, every_n_train_steps=5, filename="{step}")
    trainer(tmp_path, enable_checkpointing=True, callbacks=[saver], max_steps=5).fit(module(), data())
    other = data(FeatureSettings(d=12, count=24, mean_l0=2.5, hierarchy=Forest(2, 2)))
    with pytest.raises(UserError, match=r"features\.(mean_l0 2\.0 and this run has 2\.5|correlation)"):
        trainer(tmp_path).fit(module(), other, ckpt_path=tmp_path / "step=5.ckpt")


def test_ranks_share_a_batch_without_overlap(monkeypatch):
    def batches(world):
        sources = []
        for rank in range(world):
            source = data()
            monkeypatch.setattr(SyntheticActivations, "_rank", Rank(rank, world))
            source.setup("fit")
            sources.append(list(source.train_dataloader()))
        return [torch.cat([part.activations[0] for part in parts]) for parts in zip(*sources, strict=True)]

    for one, shared in zip(batches(1), batches(2), strict=True):
        assert torch.equal(one, shared)


def test_the_truth_and_the_codes_of_a_batch_can_be_asked_for():
    source = data(FeatureSettings(d=12, count=24, mean_l0=2.0, bias_norm=1.0))
    source.setup("fit")
    batch = next(iter(source.train_dataloader()))
    rebuilt = source.codes(batch.rows) @ source.truth.atoms + source.truth.bias
    torch.testing.assert_close(batch.activations[0], rebuilt)
    assert torch.equal(source.sample(64).activations[0], batch.activations[0])
    assert source.shapes == {"synthetic": 12}


@pytest.mark.slow
def test_a_topk_autoencoder_finds_most_of_an_easy_dictionary(tmp_path):
    easy = FeatureSettings(d=32, count=48, mean_l0=3.0, exponent=0.3, magnitudes=Constant(), max_coherence=0.45)
    model = module(TopK(64, 3), optimizer=lambda parameters: torch.optim.Adam(parameters, lr=5e-3))
    source = data(easy, batch_size=512, train_rows=512 * 150)
    recovery = trainer(tmp_path, max_epochs=2, callbacks=[DictionaryRecovery()])
    recovery.fit(model, source)
    found = (best_matching(source.truth.atoms, model.autoencoder.W_dec.detach()).cosines > 0.9).double().mean()
    assert found >= 0.8
    assert recovery.callback_metrics["val/recovered"] == pytest.approx(float(found), abs=0.03)
    assert recovery.callback_metrics["val/mean_max_cosine"] > 0.9


@pytest.mark.parametrize(
    ("settings", "stage", "message"),
    [
        ({"batch_size": 2000}, "fit", "batch_size 2000 is more than the 1700 rows of train_rows"),
        ({"validation_rows": 0}, "validate", "validation_rows is 0: raise it"),
        ({"features": FeatureSettings(d=12, count=4, mean_l0=3.0)}, "fit", "mean_l0 3.0 is more than 4 features"),
    ],
)
def test_impossible_settings_are_told(settings, stage, message):
    with pytest.raises(UserError, match=message):
        data(**settings).setup(stage)


def test_recovery_is_refused_without_a_truth(store, tmp_path):
    from datamodules.activations import ActivationDataModule

    known = ActivationDataModule(str(store), batch_size=64)
    with pytest.raises(UserError, match=r"DictionaryRecovery .* set data to SyntheticActivations"):
        trainer(tmp_path, callbacks=[DictionaryRecovery()]).fit(module(), known)


def test_the_config_runs_and_sums_up(tmp_path, capsys):
    shorter = {
        "data.train_rows": "4096",
        "data.features.seed": "3",
        "trainer.max_epochs": "1",
        "run.folder": str(tmp_path),
    }
    overrides = [f"--{name}={value}" for name, value in shorter.items()]
    assert main(["fit", "--config", "configs/synthetic.yaml", *overrides]) == 0
    assert "true features found" in capsys.readouterr().out
