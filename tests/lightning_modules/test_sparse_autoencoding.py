import json
import os
import shutil
from functools import partial

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import ReduceLROnPlateau

from callbacks import AtomicCheckpointIO
from datamodules.activations import ActivationDataModule
from lightning_modules.autoencoders import ReLU, TopK
from lightning_modules.sparse_autoencoding import SparseAutoencoding
from run_store import UserError


def trainer(folder, **settings):
    defaults = {
        "max_epochs": 2,
        "accelerator": "cpu",
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
        "num_sanity_val_steps": 0,
        "log_every_n_steps": 1,
        "plugins": [AtomicCheckpointIO()],
        "default_root_dir": folder,
    }
    return Trainer(**{**defaults, **settings})


def module(autoencoder=None, **settings):
    torch.manual_seed(0)
    return SparseAutoencoding(autoencoder or TopK(24, 3), **settings)


class Recorder(Callback):
    """Remembers what was logged at every step."""

    def __init__(self):
        self.steps = []

    def on_train_batch_end(self, trainer, *_):
        self.steps.append({name: float(value) for name, value in trainer.callback_metrics.items()})


@pytest.mark.first_is_fast
@pytest.mark.parametrize("autoencoder", [TopK(24, 3), ReLU(24, l1_coefficient=0.003)], ids=["topk", "relu"])
def test_a_training_learns_and_logs_every_term_apart(data, tmp_path, autoencoder):
    recorder = Recorder()
    model = module(autoencoder)
    fit = trainer(tmp_path, max_epochs=6, callbacks=[recorder])
    fit.fit(model, data)
    assert recorder.steps[-1]["train/fvu"] < 0.5 * recorder.steps[0]["train/fvu"]
    terms = {name for name in recorder.steps[-1] if name.startswith("train/loss_")}
    assert terms == {
        "train/loss_reconstruction",
        "train/loss_aux_k" if isinstance(autoencoder, TopK) else "train/loss_l1",
    }
    assert {"val/fvu", "val/explained_variance", "val/l0", "val/dead", "val/dense"} <= set(fit.callback_metrics)
    torch.testing.assert_close(model.autoencoder.W_dec.norm(dim=1), torch.ones(24))
    scores = fit.test(model, data, verbose=False)[0]
    assert scores["test/fvu"] < 0.6
    assert 0 < scores["test/l0"] <= (3 if isinstance(autoencoder, TopK) else 24)


def test_the_total_is_the_weighted_sum_of_its_terms_with_the_sparsity_warmed_up(data, tmp_path):
    recorder = Recorder()
    trainer(tmp_path, max_epochs=1, callbacks=[recorder]).fit(module(ReLU(24, 0.5), sparsity_warmup=10.0), data)
    for step, logged in enumerate(recorder.steps):
        weight = 0.5 * min(1, (step + 1) / 10)
        expected = logged["train/loss_reconstruction"] + weight * logged["train/loss_l1"]
        assert logged["train/loss"] == pytest.approx(expected, rel=1e-5)


def states(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


@pytest.mark.first_is_fast
@pytest.mark.parametrize("stop_after", [1, 11, 13, 26, 30])
def test_a_resumed_run_is_bit_identical_to_an_uninterrupted_one(data, store, tmp_path, stop_after):
    """In mid-epoch, at a validation in mid-epoch (13), at the end of an epoch and in the second."""
    settings = {"max_epochs": 2, "val_check_interval": 13, "gradient_clip_val": 1.0}
    whole = module(dead_after_tokens=200)
    straight = trainer(tmp_path, **settings)
    straight.fit(whole, data)

    saver = ModelCheckpoint(
        tmp_path / str(stop_after), every_n_train_steps=stop_after, filename="{step}", save_top_k=-1
    )
    trainer(tmp_path, enable_checkpointing=True, callbacks=[saver], **settings).fit(module(dead_after_tokens=200), data)
    resumed = module(dead_after_tokens=200)
    torch.manual_seed(99)  # the global random state must not matter
    again = trainer(tmp_path, **settings)
    fresh = ActivationDataModule(str(store), batch_size=64, validation_share=0.1, test_share=0.1, block_rows=4)
    again.fit(resumed, fresh, ckpt_path=tmp_path / str(stop_after) / f"step={stop_after}.ckpt")

    assert again.global_step == straight.global_step
    for name, value in states(whole).items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    moments, moments_again = (t.optimizers[0].state_dict()["state"] for t in (straight, again))
    for index, state in moments.items():
        assert all(torch.equal(state[key], moments_again[index][key]) for key in state)


def test_accumulated_batches_leave_schedules_counters_and_weights_as_one_large_batch(store, tmp_path):
    def run(batch_size, accumulate):
        recorder = Recorder()
        data = ActivationDataModule(str(store), batch_size=batch_size, validation_share=0, test_share=0.1, block_rows=1)
        model = module(dead_after_tokens=10**6)
        fit = trainer(tmp_path, max_steps=8, max_epochs=-1, accumulate_grad_batches=accumulate, callbacks=[recorder])
        fit.fit(model, data)
        return model, [step["train/lr"] for step in recorder.steps][accumulate - 1 :: accumulate]

    large, rates_large = run(128, 1)
    small, rates_small = run(64, 2)
    assert rates_large == rates_small
    assert int(large.only.tokens_seen) == int(small.only.tokens_seen) == 8 * 128
    assert torch.equal(large.only.tokens_since_fired > 128, small.only.tokens_since_fired > 128)
    # FVU's denominator is the batch's own variance, so halves weigh their rows slightly differently
    torch.testing.assert_close(large.autoencoder.W_dec, small.autoencoder.W_dec, atol=0.05, rtol=0)


class Handicap(Callback):
    """Biases that keep six latents out of the top k at first."""

    def on_train_start(self, trainer, pl_module):
        with torch.no_grad():
            pl_module.autoencoder.b_enc[:6] = -2


def test_dead_latents_are_counted_in_tokens_and_revived_by_aux_k(data, tmp_path):
    def dead_shares(coefficient):
        recorder = Recorder()
        model = module(TopK(24, 3, aux_k_coefficient=coefficient), dead_after_tokens=320)
        trainer(tmp_path, max_epochs=8, callbacks=[Handicap(), recorder]).fit(model, data)
        return [step["train/dead"] for step in recorder.steps]

    abandoned, revived = dead_shares(0.0), dead_shares(1.0)
    assert not any(revived[:5])  # 5 batches of 64 tokens are within the window of 320
    assert revived[5] >= 6 / 24
    assert abandoned[-1] >= 6 / 24
    assert revived[-1] < 3 / 24


def test_start_values_come_from_a_fixed_sample_and_are_saved(data, tmp_path):
    model = module(center="geometric_median", sample_rows=500)
    seen = {}

    class Look(Callback):
        def on_train_start(self, trainer, pl_module):
            seen.update(states(pl_module))

    trainer(tmp_path, max_steps=1, callbacks=[Look()]).fit(model, data)
    x = data.sample(500).activations[0]
    scale = 4 / x.norm(dim=1).mean()
    torch.testing.assert_close(seen["members.only.pair.normalizations.0.factor"], scale)
    torch.testing.assert_close(seen["members.only.autoencoder.mean"], (x * scale).mean(dim=0))
    distances = [
        (x * scale - seen["members.only.autoencoder.b_dec"] - shift).norm(dim=1).sum() for shift in (0, 0.05, -0.05)
    ]
    assert min(distances) == distances[0]


def test_a_checkpoint_holds_plain_values_and_loads_without_data(data, tmp_path):
    model = module()
    fit = trainer(tmp_path)
    fit.fit(model, data)
    fit.save_checkpoint(tmp_path / "whole")
    checkpoint = torch.load(tmp_path / "whole" / "state.ckpt", weights_only=True)
    json.dumps(checkpoint["hyper_parameters"])
    loaded = SparseAutoencoding.load_from_checkpoint(tmp_path / "whole", autoencoder=TopK(24, 3))
    x = data.sample(50).activations[0]
    assert torch.equal(loaded(x)[1][0], model(x)[1][0])


def test_a_model_loads_from_its_weights_file_alone(data, tmp_path):
    model = module()
    fit = trainer(tmp_path)
    fit.fit(model, data)
    fit.save_checkpoint(tmp_path / "whole")
    # half of the optimiser's state is gone: nobody reads it
    state = tmp_path / "whole" / "state.ckpt"
    state.write_bytes(state.read_bytes()[: state.stat().st_size // 2] + bytes(state.stat().st_size // 2 + 1))
    os.truncate(state, json.loads((tmp_path / "whole" / "manifest.json").read_text())["files"]["state.ckpt"]["bytes"])
    loaded = SparseAutoencoding.load_from_checkpoint(tmp_path / "whole", autoencoder=TopK(24, 3))
    assert loaded.hparams["shapes"] == {"layer": 16}
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in states(model).items())
    with pytest.raises(UserError, match=r"whole is damaged \(state\.ckpt differs"):
        trainer(tmp_path, max_epochs=3).fit(module(), data, ckpt_path=tmp_path / "whole")


def test_the_reconstruction_is_on_the_scale_of_the_input(data, tmp_path):
    model = module(TopK(24, 12))
    trainer(tmp_path, max_epochs=12).fit(model, data)
    x = data.sample(200).activations[0]
    assert (model(x)[1][0] - x).norm() < 0.3 * (x - x.mean(dim=0)).norm()


def test_a_schedule_may_wait_for_a_figure_of_the_validation(data, tmp_path):
    stuck = partial(ReduceLROnPlateau, monitor="val/fvu", mode="max", patience=0, factor=0.1)  # it falls, so no better
    model = module(optimizer=partial(torch.optim.Adam, lr=1e-2), lr_scheduler=stuck)
    fit = trainer(tmp_path, max_epochs=3)
    fit.fit(model, data)
    # the first epoch is the best so far, and two more are not better
    assert fit.optimizers[0].param_groups[0]["lr"] == pytest.approx(1e-4)


def test_one_that_names_no_figure_is_refused(data, tmp_path):
    model = module(lr_scheduler=torch.optim.lr_scheduler.ReduceLROnPlateau)
    with pytest.raises(UserError, match=r"lightning\.pytorch\.cli\.ReduceLROnPlateau, and monitor"):
        trainer(tmp_path).fit(model, data)


def test_bf16_mixed_trains_with_an_fp32_master_copy(data, tmp_path):
    model = module()
    clipping = {"gradient_clip_val": 1.0, "gradient_clip_algorithm": "value"}
    fit = trainer(tmp_path, precision="bf16-mixed", max_epochs=4, **clipping)
    fit.fit(model, data)
    assert {p.dtype for p in model.autoencoder.parameters()} == {torch.float32}
    assert fit.callback_metrics["val/fvu"] < 0.6


def test_two_hook_points_are_refused_by_name(tmp_path, write_store):
    folder = write_store(tmp_path / "two", ("a", "b"))
    data = ActivationDataModule(str(folder), batch_size=64, validation_share=0.1, test_share=0.1)
    with pytest.raises(UserError, match=r"one hook point.*a, b.*hook_points"):
        trainer(tmp_path).fit(module(), data)


def test_a_wrong_width_names_both_sides(data, tmp_path):
    with pytest.raises(UserError, match=r"layer of width 8 .*layer of width 16"):
        trainer(tmp_path).fit(module(shapes={"layer": 8}), data)


def test_weights_without_widths_are_refused():
    with pytest.raises(UserError, match=r"model\.shapes is unknown"):
        module().configure_model()


def test_a_store_with_nan_stops_training_and_names_the_shard(store, tmp_path):
    folder = tmp_path / "nan"
    shutil.copytree(store, folder)
    shard = next(path for path in sorted(folder.rglob("*.safetensors")) if path.stat().st_size > 100_000)
    with open(shard, "r+b") as file:
        file.seek(shard.stat().st_size - 4 * 16 * 1000)
        file.write(b"\x00\x00\xc0\x7f")  # one float32 NaN
    data = ActivationDataModule(str(folder), batch_size=64, validation_share=0.0, test_share=0.0, verify=False)
    with pytest.raises(UserError, match=r"shard 0, row 1000.*not finite"):
        trainer(tmp_path).fit(module(sample_rows=100), data)


def test_a_diverging_run_is_stopped_in_one_sentence_and_never_saved(data, tmp_path):
    model = module(optimizer=lambda parameters: torch.optim.SGD(parameters, lr=1e38))
    saver = ModelCheckpoint(tmp_path / "saved", every_n_train_steps=1, filename="{step}", save_top_k=-1)
    with pytest.raises(UserError, match=r"(not finite|became).*lower"):
        trainer(tmp_path, callbacks=[saver], enable_checkpointing=True).fit(model, data)
    for path in (tmp_path / "saved").glob("*.ckpt"):
        weights = AtomicCheckpointIO().load_checkpoint(path)["state_dict"]
        assert all(value.isfinite().all() for value in weights.values() if value.is_floating_point())
