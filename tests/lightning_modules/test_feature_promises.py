"""What is promised of every variant alike, tried on whatever overlay configs/autoencoder holds."""

import re
from pathlib import Path

import pytest
import torch
import yaml
from jsonargparse import ArgumentParser
from lightning.pytorch import Trainer

import cli.class_names  # noqa: F401  (short class paths in overlays)
from callbacks import DictionaryRecovery
from cli import main
from datamodules.synthetic import FeatureSettings
from datamodules.synthetic_activations import SyntheticActivations
from lightning_modules.autoencoders import Autoencoder
from lightning_modules.sparse_autoencoding import SparseAutoencoding

D, S = 6, 24
CONFIGS = Path(__file__).parents[2] / "configs"
OVERLAYS = sorted((CONFIGS / "autoencoder").glob("*.yaml"))


def reads_one_hook_point(overlay):
    return "wiring" not in yaml.safe_load(overlay.read_text())["init_args"]


@pytest.fixture(params=[path for path in OVERLAYS if reads_one_hook_point(path)], ids=lambda path: path.stem)
def variant(request):
    """The autoencoder of an overlay, small."""
    config = yaml.safe_load(request.param.read_text())
    smaller = {"d_sae": S, "k": 4, "target_l0": 4}
    config["init_args"] |= {name: smaller[name] for name in config["init_args"] if name in smaller}
    parser = ArgumentParser()
    parser.add_argument("--autoencoder", type=Autoencoder)
    torch.manual_seed(0)
    return parser.instantiate(parser.parse_object({"autoencoder": config})).autoencoder


@pytest.mark.parametrize("rows", [torch.randn(16, D), torch.zeros(16, D), 1e4 * torch.randn(16, D), torch.randn(1, D)])
def test_shapes_and_values_are_as_they_should_be_in_training_and_evaluation(variant, rows):
    variant.build(D)
    for mode in (variant.train(), variant.eval()):
        codes, reconstruction = mode(rows)
        assert codes.dense().shape == (len(rows), S)
        assert codes.firing_counts().shape == (S,)
        assert reconstruction.shape == (len(rows), D)
        assert codes.dense().isfinite().all()
        assert reconstruction.isfinite().all()
        assert variant.signed or (codes.dense() >= 0).all()


def test_every_parameter_has_a_finite_gradient_that_is_not_zero_at_the_first_step_and_after_it(variant):
    variant.build(D)
    optimizer = torch.optim.Adam(variant.parameters(), lr=1e-3)
    for _ in range(3):
        terms = variant.training_pass(torch.randn(512, D), torch.tensor([1, 5])).terms
        total = sum(term.value * term.weight for term in terms.values())
        optimizer.zero_grad()
        total.backward()
        assert total.isfinite()
        for name, parameter in variant.named_parameters():
            assert parameter.grad.isfinite().all(), name
            assert parameter.grad.any(), name
        variant.before_optimizer_step()
        optimizer.step()
        variant.after_optimizer_step()


@pytest.mark.first_is_fast
def test_a_training_reports_every_loss_apart_and_what_validation_measures(variant, tmp_path):
    features = FeatureSettings(d=D, count=S, mean_l0=2.0)
    data = SyntheticActivations(features, batch_size=64, train_rows=256, validation_rows=128)
    trainer = Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        num_sanity_val_steps=0,
        default_root_dir=tmp_path,
        callbacks=[DictionaryRecovery()],
    )
    model = SparseAutoencoding(variant)
    trainer.fit(model, data)
    logged = {name: float(value) for name, value in trainer.callback_metrics.items()}
    terms = variant.training_pass(torch.randn(64, D)).terms
    assert "reconstruction" in terms
    assert {f"train/loss_{name}" for name in terms} | {"train/loss", "train/l0", "train/dead"} <= logged.keys()
    measured = ["mse", "l1", "l0", "fvu", "fvu_without_latents", "cosine", "relative_reconstruction_bias", "dead"]
    assert {f"val/{name}" for name in [*measured, "recovered", "mean_max_cosine"]} <= logged.keys()
    assert torch.tensor(list(logged.values())).isfinite().all()


REFUSED = {
    "data.features.d=0": r"data\.features\.d must be a PositiveInt",
    "model.autoencoder.d_sae=0": r"model\.autoencoder\.d_sae must be a PositiveInt",
    "data.batch_size=0": r"data\.batch_size must be a PositiveInt",
    "model.optimizer.lr=0": r"model\.optimizer\.lr is 0",
    "model.optimizer.lr=-1": r"model\.optimizer .*learning rate: -1",
    "model.optimizer.weight_decay=-1": r"model\.optimizer .*weight_decay .*-1",
    "model.lr_scheduler.warmup=-1": r"model\.lr_scheduler\.warmup must be a NonNegativeFloat",
    "trainer.max_steps=0": r"trainer\.max_steps is 0",
    "trainer.gradient_clip_val=0": r"trainer\.gradient_clip_val is 0",
    "trainer.log_every_n_steps=0": r"trainer\.log_every_n_steps is 0",
}


@pytest.mark.first_is_fast
@pytest.mark.parametrize("setting", REFUSED)
def test_a_setting_that_cannot_be_is_refused_by_name_before_anything_is_trained(setting, tmp_path, capsys):
    assert main(["fit", f"--config={CONFIGS}/synthetic.yaml", f"--run.folder={tmp_path}", f"--{setting}"]) == 2
    error = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(error) == 1
    assert re.search(REFUSED[setting], error[0])
    assert not list(tmp_path.rglob("checkpoints/*"))


def test_a_checkpoint_interval_of_zero_is_refused(tmp_path, capsys):
    config = yaml.safe_load((CONFIGS / "synthetic.yaml").read_text())
    config["trainer"]["callbacks"] = [{"class_path": "SaveCheckpoints", "init_args": {"every_n_steps": 0}}]
    (tmp_path / "never.yaml").write_text(yaml.safe_dump(config))
    assert main(["fit", "--config", str(tmp_path / "never.yaml"), f"--run.folder={tmp_path}"]) == 2
    assert "every_n_steps must be a PositiveInt" in capsys.readouterr().err


@pytest.mark.parametrize("job", ["sae.yaml", "sae_streamed.yaml"])
def test_resampling_is_on_by_default(job):
    callbacks = yaml.safe_load((CONFIGS / job).read_text())["trainer"]["callbacks"]
    assert "DeadNeuronResampling" in {callback["class_path"] for callback in callbacks}
