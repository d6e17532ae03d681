"""What is refused of a sweep, one member in trouble, and members that start from other trainings' weights."""

import copy
import importlib.util
import json
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.plugins import MixedPrecision

from callbacks import AtomicCheckpointIO
from lightning_modules.autoencoders import ReLU, TopK
from lightning_modules.members import Member
from run_store import UserError
from tests.lightning_modules.sweeps import alone, differing, logged, sweep, trainer

_spec = importlib.util.spec_from_file_location("hungry", Path(__file__).with_name("hungry.py"))
hungry = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(hungry)


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


@pytest.mark.first_is_fast
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
