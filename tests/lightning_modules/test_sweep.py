"""Several autoencoders on the same batches, each held against a training of its own."""

import copy
import importlib.util
import json
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from callbacks import AtomicCheckpointIO, DeadNeuronResampling
from datamodules.activations import ActivationDataModule
from lightning_modules.autoencoders import (
    BatchTopK,
    Crosscoder,
    DatasetScale,
    Gated,
    JumpReLU,
    MatryoshkaBatchTopK,
    PAnneal,
    ReLU,
    TopK,
    Transcoder,
)
from lightning_modules.members import Member
from lightning_modules.sparse_autoencoding import SparseAutoencoding
from run_store import UserError

_spec = importlib.util.spec_from_file_location("hungry", Path(__file__).with_name("hungry.py"))
hungry = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(hungry)


def adam(parameters):
    return torch.optim.Adam(parameters, lr=3e-3)


def trainer(folder, *callbacks, **settings):
    defaults = {
        "max_epochs": 1,
        "accelerator": "cpu",
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
        "num_sanity_val_steps": 0,
        "log_every_n_steps": 10**6,
        "gradient_clip_val": 1.0,
        "plugins": [AtomicCheckpointIO()],
        "default_root_dir": folder,
    }
    return Trainer(**{**defaults, **settings}, callbacks=list(callbacks))


def members():
    """Of every kind of difference."""
    return {
        "k3": Member(),
        "k5": Member(TopK(24, 5)),
        "wide": Member(TopK(40, 3)),
        "slow": Member(lr=3e-4),
        "other-seed": Member(seed=7),
        "batch": Member(BatchTopK(24, 3)),
        "relu": Member(ReLU(24, 0.02)),
        "jump": Member(JumpReLU(24)),
        "gated": Member(Gated(24)),
        "p_anneal": Member(PAnneal(24)),
        "prefixes": Member(MatryoshkaBatchTopK(24, 3)),
    }


RESUMED = ("k3", "wide", "batch", "jump", "prefixes")
"""A member of each kind of state."""


def sweep(chosen=None, **settings):
    torch.manual_seed(0)
    settings = {"optimizer": adam, "dead_after_tokens": 200, **settings}
    return SparseAutoencoding(TopK(24, 3), members=members() if chosen is None else chosen, **settings)


def alone(member, **settings):
    """The training that a member would be by itself."""
    settings = {"optimizer": adam, "dead_after_tokens": 200, **settings}
    if member.lr is not None:
        settings["optimizer"] = lambda parameters: torch.optim.Adam(parameters, lr=member.lr)
    torch.manual_seed(member.seed or 0)
    return SparseAutoencoding(member.autoencoder or TopK(24, 3), **settings)


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


def differing(one, other):
    assert one.keys() == other.keys()
    return [name for name in one if not torch.equal(one[name], other[name])]


def logged(fit):
    return {name: float(value) for name, value in fit.callback_metrics.items()}


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


@pytest.fixture
def two_points(tmp_path, write_store):
    folder = write_store(tmp_path / "two", ("a", "b"))

    def data(hook_points=None):
        return ActivationDataModule(
            str(folder), batch_size=64, hook_points=hook_points, validation_share=0.1, test_share=0.1, block_rows=4
        )

    return data


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


# ---- what is refused


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        ([], "members is empty"),
        ([""], "a member called '': a name is made of"),
        (["a/b"], "a member called 'a/b': a name is made of"),
        (["..", "a"], r"a member called '\.\.': a name is made of"),
        (["k0.5"], "a member called 'k0.5': a name is made of"),
        (["val"], "a member called val, which means something else"),
        (["Train"], "a member called Train, which means something else"),
        (["only"], "a member called only, which means something else"),
        (["items"], "a member called items, which means something else"),
        (["training"], "a member called training, which means something else"),
        (["k16", "K16"], "k16 twice but for its case"),
    ],
)
def test_a_name_that_cannot_be_used_is_refused_before_training(data, tmp_path, names, sentence):
    model = sweep({name: Member() for name in names})
    with pytest.raises(UserError, match=sentence):
        model.check_settings(data)
    with pytest.raises(UserError, match=sentence):
        trainer(tmp_path).fit(model, data)


@pytest.mark.parametrize(
    ("member", "sentence"),
    [
        (Member(hook_points=["a", "z"]), r"member x: hook_points names z, and the data has a, b"),
        (Member(hook_points=[]), r"member x: hook_points is \[\]: name at least one"),
        (Member(hook_points=["a", "a"]), r"member x: hook_points is \[a, a\]: name at least one, each once"),
        (Member(), r"member x: .*the data gives 2 \(a, b\)"),
        (Member(TopK(24, 30), hook_points=["a"]), r"member x: k is 30 and d_sae is 24"),
    ],
)
def test_what_one_member_cannot_do_is_refused_by_its_name(two_points, tmp_path, member, sentence):
    model = sweep({"fine": Member(hook_points=["b"]), "x": member})
    data = two_points()
    with pytest.raises(UserError, match=sentence):
        model.check_settings(data)
    with pytest.raises(UserError, match=sentence):
        trainer(tmp_path).fit(model, data)


def test_steps_that_a_scaler_leaves_out_for_all_are_refused(data, tmp_path):
    from lightning.pytorch.plugins import MixedPrecision

    plugins = [AtomicCheckpointIO(), MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu"))]
    with pytest.raises(UserError, match=r"trainer\.precision 16-mixed leaves a step out for all members"):
        trainer(tmp_path, plugins=plugins).fit(sweep({"a": Member(), "b": Member()}), data)


def test_one_autoencoder_is_asked_of_a_sweep_by_name():
    model = sweep({"k3": Member(), "k5": Member(TopK(24, 5))})
    with pytest.raises(UserError, match=r"has the members k3, k5: name one of them"):
        _ = model.autoencoder
    with pytest.raises(UserError, match=r"has the members k3, k5: there is no k7"):
        model.members.chosen("k7")


# ---- one member in trouble


class Spoils(Callback):
    """Sets weights of one member to NaN before a step and puts them back after it, as a bad batch would."""

    def __init__(self, name, steps):
        self.name, self.steps = name, steps

    def on_train_batch_start(self, trainer, pl_module, *_):
        self.kept = None
        if trainer.global_step in self.steps and self.name in pl_module.members:
            b_dec = pl_module.members[self.name].autoencoder.b_dec
            self.kept = b_dec.detach().clone()
            with torch.no_grad():
                b_dec.fill_(float("nan"))

    def on_train_batch_end(self, trainer, pl_module, *_):
        if self.kept is not None:
            with torch.no_grad():
                pl_module.members[self.name].autoencoder.b_dec.copy_(self.kept)


@pytest.mark.parametrize("policy", ["skip", "roll_back"])
def test_a_bad_member_loses_its_own_step_and_no_other_is_touched(data, tmp_path, policy, recwarn):
    chosen = {"good": Member(), "bad": Member(TopK(24, 5)), "fine": Member(ReLU(24))}
    fresh = copy.deepcopy(chosen)
    together = sweep(chosen, non_finite=policy)
    fit = trainer(tmp_path, Spoils("bad", {5, 6}), log_every_n_steps=1)
    fit.fit(together, copy.deepcopy(data))
    assert any("the loss of member bad became nan at step 5: it is left out" in str(w.message) for w in recwarn.list)
    for name in ("good", "fine"):
        single = alone(fresh[name], non_finite=policy)
        trainer(tmp_path).fit(single, copy.deepcopy(data))
        assert differing(together.members[name].state_dict(), single.only.state_dict()) == [], name
    assert [together.watches[name].left_out for name in chosen] == [0, 2, 0]
    assert together.members["bad"].is_finite()
    assert int(together.members["bad"].tokens_seen) == int(together.members["good"].tokens_seen)
    scores = logged(fit)
    assert scores["bad/train/steps_left_out"] == 2
    assert "good/train/steps_left_out" not in scores
    steps = [int(value["step"]) for value in _states(fit, together.members["bad"])]
    # Adam has not seen the steps that were left out, nor the five before them that were taken back
    assert set(steps) == {fit.global_step - {"skip": 2, "roll_back": 7}[policy]}


def _states(fit, member):
    return [fit.optimizers[0].state[parameter] for parameter in member.autoencoder.parameters()]


def test_stop_ends_the_run_naming_the_member_and_keeps_its_rows_under_its_name(data, tmp_path):
    from lightning.pytorch.loggers import CSVLogger

    chosen = {"good": Member(), "bad": Member(TopK(24, 5))}
    fit = trainer(tmp_path, Spoils("bad", {5}), logger=CSVLogger(tmp_path, name="", version="run"))
    with pytest.raises(UserError, match=r"the loss of member bad became nan at step 5: lower the learning rate"):
        fit.fit(sweep(chosen), data)
    (file,) = (tmp_path / "run" / "non_finite").rglob("*.json")
    assert file.relative_to(tmp_path / "run" / "non_finite").as_posix() == "bad/step-00000005.json"
    assert len(json.loads(file.read_text())["batches"][0]["rows"]) == 64


def test_a_member_for_which_memory_runs_out_is_computed_in_parts_and_the_others_whole(data, tmp_path):
    class RunsOut(Callback):
        def on_train_batch_start(self, trainer, pl_module, *_):
            pl_module.members["hungry"].autoencoder.rows_forward = 20

    chosen = {"calm": Member(TopK(24, 3)), "hungry": Member(hungry.HungryTopK(24, 3))}
    together = sweep(chosen)
    trainer(tmp_path, RunsOut()).fit(together, copy.deepcopy(data))
    assert [together.members[name].memory.rows_at_once for name in chosen] == [None, 16]
    calm, parts = (together.members[name].autoencoder for name in chosen)
    torch.testing.assert_close(parts.W_dec, calm.W_dec, rtol=0, atol=1e-3)


# ---- another training's weights


def test_members_start_from_those_of_their_name_or_from_the_one_that_is_named(data, tmp_path):
    chosen = {"k3": Member(), "k5": Member(TopK(24, 5))}
    source = sweep(copy.deepcopy(chosen))
    trainer(tmp_path).fit(source, copy.deepcopy(data))
    weights = source.state_dict()

    def configured(model):
        trainer(tmp_path, max_steps=0, limit_val_batches=0).fit(model, copy.deepcopy(data))
        return model

    same = configured(sweep(copy.deepcopy(chosen)))
    same.members.start_from(weights)
    for name in chosen:
        assert torch.equal(same.members[name].autoencoder.W_enc, source.members[name].autoencoder.W_enc)
        assert int(same.members[name].tokens_seen) == 0
    single = configured(alone(Member(TopK(24, 5))))
    single.members.start_from(weights, "k5")
    assert torch.equal(single.autoencoder.W_enc, source.members["k5"].autoencoder.W_enc)
    fanned = configured(sweep({"slow": Member(lr=1e-4), "fast": Member(lr=1e-2)}))
    fanned.members.start_from(single.state_dict())
    assert all(torch.equal(m.autoencoder.W_enc, single.autoencoder.W_enc) for m in fanned.members.by_name.values())
    with pytest.raises(UserError, match=r"those of the members k3, k5: name one of them in run\.member"):
        single.members.start_from(weights)


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
