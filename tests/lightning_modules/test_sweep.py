"""Several autoencoders on the same batches, each held against a training of its own."""

import copy

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint

from callbacks import DeadNeuronResampling
from lightning_modules.autoencoders import (
    Crosscoder,
    DatasetScale,
    ReLU,
    TopK,
    Transcoder,
)
from lightning_modules.members import Member
from tests.lightning_modules.sweeps import alone, differing, logged, members, sweep, trainer

RESUMED = ("k3", "wide", "batch", "jump", "prefixes")
"""A member of each kind of state."""


class Seen(Callback):
    """Of each member: the gradient as backward left it, then as it was clipped, and the optimiser's moments."""

    def __init__(self):
        self.raw, self.clipped, self.moments = {}, {}, {}

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        for name, member in pl_module.members.by_name.items():
            self.raw[name] = {key: p.grad.clone() for key, p in member.autoencoder.named_parameters()}

    def on_train_batch_end(self, trainer, pl_module, outputs, *_):
        self.loss = float(outputs["loss"])
        state = trainer.optimizers[0].state
        for name, member in pl_module.members.by_name.items():
            parameters = dict(member.autoencoder.named_parameters())
            self.clipped[name] = {key: p.grad.clone() for key, p in parameters.items()}
            self.moments[name] = {
                f"{key}.{moment}": value.clone() for key, p in parameters.items() for moment, value in state[p].items()
            }


def test_a_step_in_float64_is_each_members_own_from_gradient_to_counters(data, tmp_path):
    settings = {"max_steps": 1, "max_epochs": -1, "precision": "64-true", "gradient_clip_val": 0.05}
    together, seen = sweep(), Seen()
    trainer(tmp_path, seen, **settings).fit(together, copy.deepcopy(data))
    losses = []
    for name, member in members().items():
        single, own = alone(member), Seen()
        trainer(tmp_path, own, **settings).fit(single, copy.deepcopy(data))
        losses.append(own.loss)
        for what in ("raw", "clipped", "moments"):
            assert differing(getattr(seen, what)[name], getattr(own, what)["only"]) == [], (name, what)
        assert differing(together.members[name].state_dict(), single.only.state_dict()) == [], name
        assert any(torch.norm(g) > 0 for g in own.raw["only"].values())
    assert seen.loss == pytest.approx(sum(losses), rel=1e-12)
    clipped = [torch.stack([g.norm() for g in gradients.values()]).norm() for gradients in seen.clipped.values()]
    assert all(norm <= 0.05 + 1e-9 for norm in clipped)
    assert sum(float(norm) > 0.049 for norm in clipped) > 1, "each to the whole of the limit"


@pytest.mark.slow
def test_after_hundreds_of_steps_with_resampling_each_member_is_what_it_would_be_alone(data, tmp_path):
    """Its draws and its learning do not depend on the others: not a bit differs."""
    settings = {"max_epochs": 12, "check_val_every_n_epoch": 12}
    together = sweep()
    fit = trainer(tmp_path, DeadNeuronResampling((40, 0.5)), **settings)
    fit.fit(together, copy.deepcopy(data))
    assert fit.global_step > 300
    scores = logged(fit)
    for name, member in members().items():
        single = alone(member)
        own = trainer(tmp_path, DeadNeuronResampling((40, 0.5)), **settings)
        own.fit(single, copy.deepcopy(data))
        assert differing(together.members[name].state_dict(), single.only.state_dict()) == [], name
        for figure, value in logged(own).items():
            assert scores[f"{name}/{figure}"] == value, (name, figure)
    assert len({scores[f"{name}/val/fvu"] for name in members()}) == len(members())


@pytest.mark.slow
@pytest.mark.parametrize("stop_after", [11, 30])
def test_a_resumed_sweep_is_bit_identical(data, tmp_path, stop_after):
    def run(*callbacks):
        fit = trainer(
            tmp_path,
            DeadNeuronResampling((8, 20)),
            *callbacks,
            max_epochs=2,
            val_check_interval=13,
            enable_checkpointing=bool(callbacks),
        )
        return sweep({name: member for name, member in members().items() if name in RESUMED}), fit

    straight, fit = run()
    fit.fit(straight, copy.deepcopy(data))
    saver = ModelCheckpoint(tmp_path / "saved", every_n_train_steps=stop_after, filename="{step}", save_top_k=-1)
    model, fit = run(saver)
    fit.fit(model, copy.deepcopy(data))
    resumed, again = run()
    torch.manual_seed(99)
    again.fit(resumed, copy.deepcopy(data), ckpt_path=tmp_path / "saved" / f"step={stop_after}.ckpt")
    assert differing(straight.state_dict(), resumed.state_dict()) == []


def test_every_figure_stands_under_its_members_name_and_the_mean_under_its_own(data, tmp_path):
    chosen = {"k3": Member(), "k5": Member(TopK(24, 5)), "relu": Member(ReLU(24))}
    fit = trainer(tmp_path, log_every_n_steps=1)
    fit.fit(sweep(chosen), data)
    scores = logged(fit)
    for figure in ("val/fvu", "val/l0", "train/fvu", "train/l0", "train/dead", "train/loss", "train/lr"):
        own = [scores[f"{name}/{figure}"] for name in chosen]
        assert scores[figure] == pytest.approx(sum(own) / 3, rel=1e-5), figure
    assert (scores["k3/val/l0"], scores["k5/val/l0"]) == pytest.approx((3, 5))
    assert "relu/train/loss_l1" in scores
    assert "train/loss_l1" not in scores, "not all of them have it"


class Counted(DatasetScale):
    """Counts how often it is used."""

    uses = 0

    def forward(self, x):
        type(self).uses += 1
        return super().forward(x)


def test_a_batch_is_normalised_once_for_all_members_that_read_it(data, tmp_path):
    def uses_in_ten_steps(chosen):
        Counted.uses = 0
        settings = {"max_steps": 10, "max_epochs": -1, "limit_val_batches": 0}
        model = sweep(chosen, normalization=Counted())
        trainer(tmp_path, **settings).fit(model, copy.deepcopy(data))
        return Counted.uses - len(model.members)  # each has looked at the start sample

    one = uses_in_ten_steps({"one": Member()})
    assert one == 10
    assert uses_in_ten_steps({f"k{k}": Member(TopK(24, k)) for k in range(1, 9)}) == one


# ---- hook points


def test_one_extraction_serves_every_hook_point_and_wiring(two_points, tmp_path):
    chosen = {
        "a3": Member(hook_points=["a"]),
        "b5": Member(TopK(24, 5), hook_points=["b"]),
        "both": Member(TopK(24, 3, wiring=Crosscoder())),
        "b-from-a": Member(TopK(24, 3, wiring=Transcoder()), hook_points=["a", "b"]),
        "a-from-b": Member(TopK(24, 3, wiring=Transcoder()), hook_points=["b", "a"]),
    }
    fresh = copy.deepcopy(chosen)
    together = sweep(chosen)
    together.check_settings(two_points())
    fit = trainer(tmp_path)
    fit.fit(together, two_points())
    for name, member in fresh.items():
        single = alone(member)
        trainer(tmp_path).fit(single, two_points(member.hook_points))
        assert differing(together.members[name].state_dict(), single.only.state_dict()) == [], name
    assert together.members["a-from-b"].pair.read_names == ("b",)
    scores = fit.test(together, two_points(), verbose=False)[0]
    assert 0 < scores["both/test/fvu/a"] < 1


# ---- several processes


class Leaves(Callback):
    """The state of every rank in a file."""

    def __init__(self, folder):
        self.folder = folder

    def on_train_end(self, trainer, pl_module):
        self.folder.mkdir(exist_ok=True)
        states = {name: member.state_dict() for name, member in pl_module.members.by_name.items()}
        torch.save(states, self.folder / f"{trainer.global_rank}.pt")


@pytest.mark.slow
def test_under_ddp_each_member_is_what_it_would_be_alone_under_ddp(data, tmp_path):
    def states(model, folder):
        ddp = {"devices": 2, "strategy": "ddp_fork", "max_steps": 12, "max_epochs": -1, "limit_val_batches": 0}
        trainer(tmp_path, Leaves(folder), DeadNeuronResampling((8,)), **ddp).fit(model, copy.deepcopy(data))
        one, other = (torch.load(folder / f"{rank}.pt", weights_only=True) for rank in (0, 1))
        assert all(differing(one[name], other[name]) == [] for name in one)
        return one

    chosen = {name: member for name, member in members().items() if name in ("k3", "wide", "batch", "relu")}
    together = states(sweep(copy.deepcopy(chosen)), tmp_path / "together")
    for name, member in chosen.items():
        single = states(alone(member), tmp_path / name)["only"]
        # DDP reduces parameters in buckets, which another number of parameters fills otherwise
        for key, value in single.items():
            torch.testing.assert_close(together[name][key], value, msg=f"{name} {key}")
