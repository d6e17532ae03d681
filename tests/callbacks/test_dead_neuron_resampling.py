"""Dead latents start anew, in real runs."""

import json
import re
from pathlib import Path

import pytest
import torch
import yaml
from jsonargparse import ArgumentParser
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger

import lightning_modules.autoencoders  # noqa: F401 (short class paths)
from callbacks import AtomicCheckpointIO, DeadNeuronResampling
from callbacks.dead_neuron_resampling import draw, forget
from datamodules.activations import ActivationDataModule
from datamodules.shards import StoreWriter
from lightning_modules.autoencoders import Autoencoder, TopK
from lightning_modules.members import Member
from lightning_modules.sparse_autoencoding import SparseAutoencoding
from run_store import UserError

OVERLAYS = Path(__file__).parents[2] / "configs" / "autoencoder"
STEPS_OF_AN_EPOCH = 27


def trainer(folder, callbacks, **settings):
    defaults = {
        "max_epochs": 1,
        "accelerator": "cpu",
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
        "num_sanity_val_steps": 0,
        "log_every_n_steps": 10**6,
        "plugins": [AtomicCheckpointIO()],
        "default_root_dir": folder,
    }
    return Trainer(**{**defaults, **settings}, callbacks=callbacks)


def module(autoencoder=None, **settings):
    torch.manual_seed(0)
    return SparseAutoencoding(autoencoder or TopK(24, 3), **{"dead_after_tokens": 200, **settings})


def kill(autoencoder, latents):
    """For good: no gradient reaches them any more."""
    with torch.no_grad():
        if autoencoder.b_enc is None or autoencoder.signed:  # −10⁴ would be a magnitude like another
            autoencoder.W_enc[latents] = 0
        else:
            autoencoder.b_enc[latents] = -1e4


class Kill(Callback):
    """Some latents die at the start, or after every step."""

    def __init__(self, latents, always=False):
        self.latents, self.always = latents, always

    def on_train_start(self, trainer, pl_module):
        if trainer.global_step == 0:
            kill(pl_module.autoencoder, self.latents)

    def on_train_batch_start(self, trainer, pl_module, *_):
        if self.always:
            kill(pl_module.autoencoder, self.latents)


def resampled(printed):
    """By step, how many were started anew."""
    return {int(step): int(count) for step, count in re.findall(r"step (\d+): (\d+) dead latents", printed)}


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize(
    ("at", "steps"), [((0.2, 0.35, 0.5, 0.65), {5, 9, 14, 18}), ((0.5, 20), {14, 20}), ((4,), {4}), ((), set())]
)
def test_latents_start_anew_at_the_chosen_steps_and_shares_and_at_no_other(
    store, tmp_path, capsys, at, steps, accumulate
):
    data = ActivationDataModule(
        str(store), batch_size=64 // accumulate, validation_share=0, test_share=0.12, block_rows=4
    )
    callbacks = [Kill(torch.arange(5), always=True), DeadNeuronResampling(at)]
    fit = trainer(tmp_path, callbacks, max_steps=STEPS_OF_AN_EPOCH, max_epochs=-1, accumulate_grad_batches=accumulate)
    fit.fit(module(dead_after_tokens=100), data)
    assert resampled(capsys.readouterr().out).keys() == steps


def test_of_a_sweep_what_is_started_anew_is_told_by_member(data, tmp_path, capsys):
    class KillOne(Callback):
        def on_train_batch_start(self, trainer, pl_module, *_):
            kill(pl_module.members["k5"].autoencoder, torch.arange(4))

    chosen = {"k3": Member(), "k5": Member(TopK(24, 5))}
    logger = CSVLogger(tmp_path, name="", version="run")
    callbacks = [KillOne(), DeadNeuronResampling((8,))]
    trainer(tmp_path, callbacks, logger=logger).fit(module(members=chosen), data)
    assert re.findall(r"step 8: (\d+) dead latents of (\S+) started anew", capsys.readouterr().out) == [("4", "k5")]
    assert "k5/train/resampled" in (tmp_path / "run" / "metrics.csv").read_text().splitlines()[0]


def test_a_step_behind_the_end_of_the_run_is_refused(data, tmp_path):
    with pytest.raises(UserError, match=r"DeadNeuronResampling has 500 in at, and the run has 27 optimiser steps"):
        trainer(tmp_path, [DeadNeuronResampling((0.5, 500))]).fit(module(), data)


class States(Callback):
    """Copies weights, moments and counters after a step."""

    def __init__(self, step):
        self.step = step

    def on_train_batch_end(self, trainer, pl_module, *_):
        if trainer.global_step == self.step:
            moments = {
                name: {key: value.clone() for key, value in trainer.optimizers[0].state[parameter].items()}
                for name, parameter in pl_module.autoencoder.named_parameters()
            }
            self.weights = {name: value.clone() for name, value in pl_module.only.state_dict().items()}
            self.moments = moments


def test_weights_moments_and_counters_of_the_dead_latents_change_and_nothing_else(data, tmp_path):
    dead, before, after = torch.tensor([3, 4, 11]), States(14), States(14)
    trainer(tmp_path, [Kill(dead), before, DeadNeuronResampling((14,)), after]).fit(module(), data)
    living = torch.ones(24, dtype=torch.bool).index_fill_(0, dead, False)
    changed = {name for name, value in after.weights.items() if not torch.equal(value, before.weights[name])}
    rows = {"autoencoder.W_enc", "autoencoder.b_enc", "autoencoder.W_dec", "tokens_since_fired"}
    assert changed == rows
    for name in rows:
        assert torch.equal(after.weights[name][living], before.weights[name][living]), name
    assert not after.weights["tokens_since_fired"][dead].any()
    for name, states in after.moments.items():
        for key, value in states.items():
            old = before.moments[name][key]
            if value.dim() == 0 or name == "b_dec":
                assert torch.equal(value, old)
            else:
                assert old[living].any()
                assert torch.equal(value[living], old[living])
                assert not value[dead].any()


def test_a_latent_points_to_a_row_of_the_sample_that_no_other_has(data, tmp_path):
    dead, after = torch.arange(10), States(14)
    model = module()
    trainer(tmp_path, [Kill(dead), DeadNeuronResampling((14,), rows=400), after]).fit(model, data)
    weights = after.weights
    x = data.sample(400).activations[0] * weights["pair.normalizations.0.factor"]
    directions = torch.nn.functional.normalize(x - weights["autoencoder.b_dec"], dim=1)
    cosines = weights["autoencoder.W_dec"][dead] @ directions.T
    torch.testing.assert_close(cosines.amax(dim=1), torch.ones(10))
    assert len(set(cosines.argmax(dim=1).tolist())) == 10
    lengths = weights["autoencoder.W_enc"].norm(dim=1)
    torch.testing.assert_close(lengths[:10], (0.5 * lengths[10:].mean()).expand(10))
    torch.testing.assert_close(
        torch.nn.functional.cosine_similarity(weights["autoencoder.W_enc"][dead], weights["autoencoder.W_dec"][dead]),
        torch.ones(10),
    )


def test_rows_that_run_out_leave_latents_for_the_next_time(data, tmp_path, capsys):
    callbacks = [Kill(torch.arange(10)), DeadNeuronResampling((10, 12), rows=6)]
    trainer(tmp_path, callbacks, logger=CSVLogger(tmp_path)).fit(module(), data)
    printed = capsys.readouterr().out
    assert resampled(printed) == {10: 6, 12: 4}
    assert "6 dead latents started anew of 10; the sample has no row" in printed
    logged = (tmp_path / "lightning_logs" / "version_0" / "metrics.csv").read_text()
    assert re.search(r"train/resampled", logged)
    assert "6.0" in logged
    assert "4.0" in logged


def test_where_nothing_is_dead_nothing_is_done(data, tmp_path, capsys):
    def weights(*callbacks):
        model = module(dead_after_tokens=10**6)
        trainer(tmp_path, list(callbacks)).fit(model, data)
        return model.state_dict()

    with_it, without = weights(DeadNeuronResampling()), weights()
    assert all(torch.equal(value, without[name]) for name, value in with_it.items())
    assert not resampled(capsys.readouterr().out)


def test_rows_are_drawn_in_proportion_to_their_squared_loss_and_never_twice():
    losses, generator = torch.tensor([0.0, 1.0, 2.0, torch.nan, 3.0, torch.inf]), torch.Generator().manual_seed(0)
    first = torch.tensor([draw(losses, 1, generator)[0] for _ in range(4000)])
    shares = torch.bincount(first, minlength=6) / 4000
    torch.testing.assert_close(shares, torch.tensor([0, 1, 4, 0, 9, 0]) / 14, atol=0.03, rtol=0)
    assert sorted(draw(losses, 5, generator).tolist()) == [1, 2, 4]
    assert len(draw(torch.zeros(3), 2, generator)) == 0
    assert sorted(draw(1e-30 * torch.ones(3), 3, generator).tolist()) == [0, 1, 2]


@pytest.mark.parametrize(
    "make",
    [
        lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9),
        lambda parameters: torch.optim.Adam(parameters, lr=0.1, amsgrad=True),
        lambda parameters: torch.optim.Adam(parameters, lr=0.1, fused=True),
        lambda parameters: torch.optim.Adafactor(parameters, lr=0.1),
        lambda parameters: torch.optim.SGD(parameters, lr=0.1),
    ],
)
def test_whatever_an_optimiser_remembers_of_the_latents_is_forgotten(make):
    rows, other = (torch.nn.Parameter(torch.randn(5, 3)) for _ in range(2))
    optimizer, latents = make([rows, other]), torch.tensor([1, 4])
    (rows.square().sum() + other.square().sum()).backward()
    optimizer.step()
    before = {key: value.clone() for key, value in optimizer.state[rows].items() if isinstance(value, torch.Tensor)}
    untouched = {key: value.clone() for key, value in optimizer.state[other].items() if isinstance(value, torch.Tensor)}
    forget(optimizer, [rows], latents)
    for key, value in before.items():
        expected = value.index_fill(0, latents, 0) if value.dim() and len(value) == 5 else value
        assert torch.equal(optimizer.state[rows][key], expected), key
    assert all(torch.equal(optimizer.state[other][key], value) for key, value in untouched.items())


@pytest.mark.first_is_fast
@pytest.mark.parametrize(("stop_after", "accumulate"), [(7, 1), (8, 1), (9, 1), (8, 2)])
def test_a_resumed_run_is_bit_identical_to_an_uninterrupted_one(data, store, tmp_path, stop_after, accumulate):
    """Stopped before a resampling, at one and after it."""
    settings = {"max_steps": 13, "max_epochs": -1, "accumulate_grad_batches": accumulate}

    def callbacks():
        return [Kill(torch.arange(8)), DeadNeuronResampling((8, 11))]

    def run(*more, **others):
        model = module()
        fresh = ActivationDataModule(str(store), batch_size=64, validation_share=0.1, test_share=0.1, block_rows=4)
        fit = trainer(tmp_path, [*callbacks(), *more], **settings, **{**others, "enable_checkpointing": bool(more)})
        return model, fit, fresh

    straight, fit, fresh = run()
    fit.fit(straight, fresh)
    moments = fit.optimizers[0].state_dict()["state"]
    saver = ModelCheckpoint(tmp_path / "saved", every_n_train_steps=stop_after, filename="{step}", save_top_k=-1)
    model, fit, fresh = run(saver)
    fit.fit(model, fresh)
    resumed, again, fresh = run()
    torch.manual_seed(99)
    again.fit(resumed, fresh, ckpt_path=tmp_path / "saved" / f"step={stop_after}.ckpt")
    assert int((straight.autoencoder.b_enc < -1000).sum()) == 0
    assert all(torch.equal(value, resumed.state_dict()[name]) for name, value in straight.state_dict().items())
    for index, state in again.optimizers[0].state_dict()["state"].items():
        assert all(torch.equal(state[key], moments[index][key]) for key in state)


class Noted(Callback):
    """Leaves weights and moments of every rank in a file."""

    def __init__(self, folder):
        self.folder = folder

    def on_train_end(self, trainer, pl_module):
        states = trainer.optimizers[0].state_dict()["state"].values()
        moments = [value for state in states for value in state.values()]
        numbers = [value.double().flatten().tolist() for value in (*pl_module.state_dict().values(), *moments)]
        (self.folder / f"{trainer.global_rank}.json").write_text(json.dumps(numbers))


@pytest.mark.slow
def test_two_processes_start_the_same_latents_anew_towards_the_same_rows(data, tmp_path):
    callbacks = [Kill(torch.arange(12)), DeadNeuronResampling((8,)), Noted(tmp_path)]
    settings = {"devices": 2, "strategy": "ddp_fork", "max_steps": 10, "max_epochs": -1}
    trainer(tmp_path, callbacks, **settings).fit(module(), data)
    one, other = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert one == other
    assert min(map(min, one)) > -1000  # no bias is where it was set


def test_settings_survive_a_config_file():
    parser = ArgumentParser()
    parser.add_class_arguments(DeadNeuronResampling, "resampling")
    parsed = parser.parse_args(["--resampling.at=[0.25, 1000]", "--resampling.rows=100"])
    again = parser.parse_object(yaml.safe_load(parser.dump(parsed)))
    assert list(parser.instantiate_classes(again).resampling.at) == [0.25, 1000]
    for wrong in ("--resampling.at=[0]", "--resampling.at=[-3]", "--resampling.rows=0"):
        with pytest.raises(SystemExit):
            parser.parse_args([wrong])


# ---- every variant

D_SAE, DEAD = 48, torch.arange(44)
HOOK_POINTS = ("first", "second", "third", "fourth")


@pytest.fixture(scope="module")
def wide_store(tmp_path_factory):
    """8000 rows of 48 features in 24 dimensions, the same at four hook points."""
    generator = torch.Generator().manual_seed(7)
    atoms = torch.nn.functional.normalize(torch.randn(D_SAE, 24, generator=generator), dim=1)
    active = torch.rand(8000, D_SAE, generator=generator) < 3 / D_SAE
    x = (active * (1 + torch.rand(8000, D_SAE, generator=generator))) @ atoms + 0.5
    folder = tmp_path_factory.mktemp("stores") / "wide"
    with StoreWriter(folder, dict.fromkeys(HOOK_POINTS, 24), "float32") as writer:
        places = torch.arange(160).repeat_interleave(50), torch.arange(50).repeat(160)
        writer.append(dict.fromkeys(HOOK_POINTS, x), torch.arange(8000), *places)
        writer.finish({"text": {"tokenizer": "none"}}, [f"document-{i}.py" for i in range(160)])
    return folder


def of_overlay(path):
    """The variant of an overlay with a small dictionary."""
    parser = ArgumentParser()
    parser.add_subclass_arguments(Autoencoder, "autoencoder")
    settings = [f"--autoencoder={path}", f"--autoencoder.d_sae={D_SAE}"]
    settings += ["--autoencoder.k=3"] if "k" in yaml.safe_load(path.read_text())["init_args"] else []
    return parser.instantiate_classes(parser.parse_args(settings)).autoencoder


def hook_points_for(wiring):
    """As many as it takes."""
    for count in range(1, len(HOOK_POINTS) + 1):
        try:
            wiring.sides(HOOK_POINTS[:count])
        except UserError:
            continue
        return list(HOOK_POINTS[:count])
    raise AssertionError("no number of hook points suits")


def share_dead_at_the_end(overlay, folder, store, callbacks):
    autoencoder = of_overlay(OVERLAYS / f"{overlay}.yaml")
    hook_points = hook_points_for(autoencoder.wiring)
    data = ActivationDataModule(
        str(store), batch_size=128, hook_points=hook_points, validation_share=0.1, test_share=0.1, block_rows=4
    )
    fit = trainer(folder, [Kill(DEAD), *callbacks], max_epochs=8, gradient_clip_val=1.0, check_val_every_n_epoch=8)
    fit.fit(module(autoencoder, dead_after_tokens=2000), data)
    return float(fit.callback_metrics["val/dead"])


@pytest.mark.slow
@pytest.mark.parametrize("overlay", sorted(path.stem for path in OVERLAYS.glob("*.yaml")))
def test_a_dictionary_of_which_nine_tenths_died_is_revived(overlay, tmp_path, wide_store):
    assert share_dead_at_the_end(overlay, tmp_path, wide_store, [DeadNeuronResampling()]) < 0.05


@pytest.mark.slow
@pytest.mark.parametrize("overlay", ["topk", "abs_topk", "jump_relu"])
def test_it_stays_dead_without_resampling(overlay, tmp_path, wide_store):
    """So the test above can fail."""
    assert share_dead_at_the_end(overlay, tmp_path, wide_store, []) > 0.85
