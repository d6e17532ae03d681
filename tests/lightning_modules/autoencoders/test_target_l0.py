"""The controller alone, on a model of what it steers, and in trainings of every variant that has a coefficient."""

import math

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from callbacks import AtomicCheckpointIO
from datamodules.synthetic import FeatureSettings
from datamodules.synthetic_activations import SyntheticActivations
from lightning_modules.autoencoders import Gated, JumpReLU, PAnneal, ReLU
from lightning_modules.autoencoders.target_l0 import SparsityCoefficient, check_target, target_count
from lightning_modules.sparse_autoencoding import SparseAutoencoding
from run_store import UserError

D_SAE, TARGET = 192, 6
VARIANTS = {
    "relu": (lambda value: ReLU(D_SAE, value, TARGET), 0.1, "l1_coefficient"),
    "p_anneal": (lambda value: PAnneal(D_SAE, value, TARGET), 0.1, "sparsity_coefficient"),
    "gated": (lambda value: Gated(D_SAE, value, TARGET), 0.1, "l1_coefficient"),
    "jump_relu": (lambda value: JumpReLU(D_SAE, value, target_l0=TARGET), 0.015, "l0_coefficient"),
    "jump_relu tanh": (lambda value: JumpReLU(D_SAE, value, "tanh", TARGET), 0.015, "l0_coefficient"),
}


def data():
    features = FeatureSettings(d=32, count=96, mean_l0=5.0, exponent=0.8, noise=0.02, bias_norm=1.0)
    return SyntheticActivations(features, 128, train_rows=80_000, validation_rows=4096, test_rows=4096)


def trainer(folder, steps, **settings):
    defaults = {
        "max_steps": steps,
        "max_epochs": -1,
        "accelerator": "cpu",
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
        "num_sanity_val_steps": 0,
        "gradient_clip_val": 1.0,
        "plugins": [AtomicCheckpointIO()],
        "default_root_dir": folder,
    }
    return Trainer(**{**defaults, **settings})


def module(autoencoder):
    torch.manual_seed(0)
    return SparseAutoencoding(autoencoder, optimizer=lambda parameters: torch.optim.Adam(parameters, lr=1e-2))


@pytest.mark.slow
@pytest.mark.parametrize("factor", [1 / 30, 30], ids=["30 times too low", "30 times too high"])
@pytest.mark.parametrize("name", VARIANTS)
def test_held_out_l0_ends_within_5_percent_of_the_target(tmp_path, name, factor):
    make, about_right, gauge = VARIANTS[name]
    model, rows = module(make(about_right * factor)), data()
    fit = trainer(tmp_path, 600)
    fit.fit(model, rows)
    scores = fit.validate(model, rows, verbose=False)[0]
    assert scores["val/l0"] == pytest.approx(TARGET, rel=0.05)
    assert scores["val/fvu"] < 0.5
    assert about_right / 10 < float(model.autoencoder.gauges()[gauge]) < about_right * 10


class Steered:
    """What training does to the L0 of a λ: it follows with a delay of some steps, as a power of λ, and is noisy."""

    def __init__(self, right, delay=30.0, power=0.7, noise=0.0):
        self.right, self.delay, self.power, self.noise = right, delay, power, noise
        self.log_l0 = math.log(1000.0)
        self.noises = torch.Generator().manual_seed(0)

    def step(self, value):
        wanted = math.log(32) - self.power * math.log(value / self.right)
        self.log_l0 += (min(wanted, math.log(1536.0)) - self.log_l0) / self.delay
        return torch.tensor(math.exp(self.log_l0 + self.noise * torch.randn((), generator=self.noises).item()))


@pytest.mark.first_is_fast
@pytest.mark.parametrize("delay", [3.0, 30.0, 300.0])
@pytest.mark.parametrize("factor", [0.01, 1.0, 100.0])
@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_a_first_order_answer_is_brought_to_the_target(delay, factor, noise):
    controller, plant = (
        SparsityCoefficient("l1_coefficient", 0.01 * factor, 32, 3072),
        Steered(0.01, delay, noise=noise),
    )
    for _ in range(800 if delay < 100 else 3000):
        controller.observe(plant.step(float(controller.weight)))
    assert math.exp(plant.log_l0) == pytest.approx(32, rel=0.1 if noise else 0.03)
    assert float(controller.weight) == pytest.approx(0.01, rel=0.8 if noise else 0.1)


def test_a_target_out_of_reach_stops_at_a_bound_and_is_left_at_once():
    controller = SparsityCoefficient("l1_coefficient", 0.01, 32, 3072)
    for _ in range(1000):
        controller.observe(torch.tensor(0.0))
    assert float(controller.weight) == pytest.approx(0.01 / 1000, rel=1e-4)
    controller.observe(torch.tensor(320.0))
    assert float(controller.weight) > 0.01


def test_a_gap_that_closes_by_itself_leaves_the_weight_where_it_was():
    controller = SparsityCoefficient("l1_coefficient", 0.01, 32, 3072)
    for l0 in (32.0, 0.1, 32.0, 32.0):
        controller.observe(torch.tensor(l0))
    assert float(controller.weight) == pytest.approx(0.01, rel=0.15)


def test_the_goal_comes_down_as_penalties_warm_up():
    controller = SparsityCoefficient("l1_coefficient", 0.01, 32, 3072)
    for step in range(1, 11):  # from 2048 to 32, halved six times on a straight line of logarithms
        controller.observe(torch.tensor(2048 * 2 ** (-6 * step / 10) if step > 1 else 2048.0), step / 10)
        assert float(controller.gap) == pytest.approx(0.6 * math.log(2) if step == 1 else 0, abs=1e-4)
    controller.observe(torch.tensor(64.0))
    assert float(controller.gap) == pytest.approx(math.log(2), rel=1e-4)


def test_a_dictionary_that_starts_below_the_target_has_the_target_as_its_goal():
    controller = SparsityCoefficient("l1_coefficient", 0.01, 32, 3072)
    controller.observe(torch.tensor(16.0), 0.01)
    assert float(controller.gap) == pytest.approx(-math.log(2), rel=1e-4)


def test_without_a_target_the_weight_is_the_setting_and_there_is_no_state():
    constant = SparsityCoefficient("l1_coefficient", 0.3, None, 24)
    constant.observe(torch.tensor(20.0))
    assert constant.weight == 0.3
    assert not constant.state_dict()
    assert not constant.gauges()


@pytest.mark.parametrize(("target", "count"), [(0.25, 6), (1, 1), (6, 6), (0.999, 24 * 0.999), (24, 24)])
def test_below_1_a_target_is_a_share_of_d_sae_and_from_1_on_a_number(target, count):
    assert target_count(target, 24) == count
    check_target(target, 24)


@pytest.mark.parametrize("variant", [ReLU, PAnneal, Gated, JumpReLU])
def test_a_target_that_cannot_be_is_refused(variant):
    with pytest.raises(UserError, match=r"target_l0 is 25 and d_sae is 24: .* up to d_sae"):
        variant(24, target_l0=25).check_settings()
    with pytest.raises(UserError, match=r"target_l0 is 6 and .*_coefficient is 0"):
        variant(24, 0.0, target_l0=6).check_settings()


@pytest.mark.parametrize("name", VARIANTS)
def test_the_weight_of_the_penalty_is_steered_logged_and_exact_after_a_resume(tmp_path, name):
    make, value, gauge = VARIANTS[name]
    saver = ModelCheckpoint(tmp_path, every_n_train_steps=7, filename="{step}", save_top_k=-1)
    fit = trainer(tmp_path, 20, enable_checkpointing=True, callbacks=[saver], log_every_n_steps=1)
    whole = module(make(value))
    fit.fit(whole, data())
    steered = whole.autoencoder.coefficient.weight
    assert not steered.requires_grad
    assert float(steered) != pytest.approx(value)
    assert {f"train/{gauge}", "train/l0"} <= fit.logged_metrics.keys() | fit.callback_metrics.keys()

    resumed = module(make(value))
    trainer(tmp_path, 20).fit(resumed, data(), ckpt_path=tmp_path / "step=7.ckpt")
    for key, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[key]), key
