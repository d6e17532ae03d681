"""A loss or a gradient that is not finite, under each policy, in real runs over stores and losses that go wrong."""

import copy
import json
import shutil

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.plugins import MixedPrecision

from callbacks import AtomicCheckpointIO
from datamodules.activations import ActivationDataModule
from lightning_modules import non_finite
from lightning_modules.autoencoders import LossTerm, TopK
from lightning_modules.non_finite import NonFiniteWatch, with_bad_gradient_if_bad
from lightning_modules.sparse_autoencoding import SparseAutoencoding
from run_store import UserError


class _Backward(torch.autograd.Function):
    """Multiplies the gradient alone."""

    @staticmethod
    def forward(ctx, x, factor):
        ctx.factor = factor
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        return grad * ctx.factor, None


class GoesWrong(TopK):
    """Multiplies its reconstruction by `loss_factor` and the gradient through it by `gradient_factor`, and adds a term
    without a gradient."""

    loss_factor = 1.0
    gradient_factor = 1.0
    constant = 0.0

    def forward(self, x):
        codes, reconstruction = super().forward(x)
        return codes, _Backward.apply(reconstruction * self.loss_factor, self.gradient_factor)

    def sparsity_terms(self, x, y, codes, error, dead, whole):
        terms = super().sparsity_terms(x, y, codes, error, dead, whole)
        return {**terms, "constant": LossTerm(x.new_tensor(self.constant), 1.0)}


class Breaks(Callback):
    """At some steps sets a factor to what it should not be; remembers weights, moments and logs after every step."""

    def __init__(self, steps, name="loss_factor", value=float("nan"), only_rank=None):
        self.steps, self.name, self.value, self.only_rank = frozenset(steps), name, value, only_rank
        self.after, self.logged = {}, []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        bad = trainer.global_step in self.steps and self.only_rank in (None, trainer.global_rank)
        setattr(pl_module.autoencoder, self.name, self.value if bad else getattr(GoesWrong, self.name))

    def on_train_batch_end(self, trainer, pl_module, *_):
        optimizer = trainer.optimizers[0]
        tensors = [*pl_module.autoencoder.parameters(), *(v for s in optimizer.state.values() for v in s.values())]
        self.after[trainer.global_step] = [tensor.detach().clone() for tensor in tensors]
        self.logged.append({name: float(value) for name, value in trainer.callback_metrics.items()})


def same(one, other):
    return len(one) == len(other) and all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def trainer(folder, **settings):
    defaults = {
        "max_steps": 12,
        "max_epochs": -1,
        "accelerator": "cpu",
        "logger": CSVLogger(folder, name="", version="run"),
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
        "num_sanity_val_steps": 0,
        "limit_val_batches": 0,
        "log_every_n_steps": 1,
        "gradient_clip_val": 1.0,
        "plugins": [AtomicCheckpointIO()],
        "default_root_dir": folder,
    }
    return Trainer(**{**defaults, **settings})


def module(policy="stop", **settings):
    torch.manual_seed(0)
    settings = {"dead_after_tokens": 200, **settings}
    return SparseAutoencoding(GoesWrong(24, 3), non_finite=policy, **settings)


def saved(folder):
    files = sorted((folder / "run" / "non_finite").iterdir())
    return {file.name: json.loads(file.read_text(), parse_constant=pytest.fail) for file in files}


WRONG = {
    "loss nan": ("loss_factor", float("nan"), "the loss became nan"),
    "loss inf": ("loss_factor", 1e30, "the loss became inf"),
    "gradient alone": ("gradient_factor", float("inf"), "the gradient became (nan|inf)"),
    "loss alone": ("constant", float("inf"), "the loss became inf"),
}


@pytest.mark.parametrize("clipping", [{}, {"gradient_clip_val": None}, {"gradient_clip_algorithm": "value"}], ids=repr)
@pytest.mark.parametrize("name", WRONG)
def test_stop_is_one_sentence_at_the_step_itself_with_the_rows_saved_and_the_weights_untouched(
    data, tmp_path, name, clipping
):
    factor, value, sentence = WRONG[name]
    breaks, model = Breaks({5}, factor, value), module()
    with pytest.raises(UserError, match=rf"^{sentence} at step 5: lower the learning rate \(its rows: .*step-00000005"):
        trainer(tmp_path, callbacks=[breaks], **clipping).fit(model, data)
    assert same(list(model.autoencoder.parameters()), breaks.after[5][:4])
    files = saved(tmp_path)
    assert list(files) == ["step-00000005.json"]
    (batch,) = files["step-00000005.json"]["batches"]
    assert batch["rows"] == rows_of_batch(data, 5)
    assert batch["not_finite_rows"] == []
    assert len(batch["provenance"]) == 64
    assert f"row {batch['rows'][0]} of" in batch["provenance"][0]
    assert "position" in batch["provenance"][0]


def rows_of_batch(data, number):
    fresh = copy.deepcopy(data)
    fresh.setup("fit")
    return [batch.rows.tolist() for batch in fresh.train_dataloader()][number]


class LooksLate(NonFiniteWatch):
    """As on a GPU."""

    @staticmethod
    def is_late(norm):
        return True


@pytest.mark.parametrize(("bad", "reached"), [(5, 6), (11, 12)], ids=["in the middle", "in the last step"])
def test_where_looking_means_waiting_stop_comes_one_step_later_and_names_the_step_and_rows_that_were_bad(
    data, tmp_path, bad, reached
):
    model = module()
    model.watches["only"] = LooksLate("stop", 10)
    fit = trainer(tmp_path, callbacks=[Breaks({bad})])
    with pytest.raises(UserError, match=rf"the loss became nan at step {bad}: lower"):
        fit.fit(model, data)
    assert fit.global_step == reached
    (content,) = saved(tmp_path).values()
    assert content["step"] == bad
    assert content["batches"][0]["rows"] == rows_of_batch(data, bad)
    with pytest.raises(UserError, match="weights are not finite"):
        fit.save_checkpoint(tmp_path / "refused")


def test_a_bad_row_of_the_store_is_named_in_sentence_and_file(store, tmp_path):
    folder = tmp_path / "nan"
    shutil.copytree(store, folder)
    shard = next(path for path in sorted(folder.rglob("*.safetensors")) if path.stat().st_size > 100_000)
    with open(shard, "r+b") as file:
        file.seek(shard.stat().st_size - 4 * 16 * 1000)
        file.write(b"\x00\x00\xc0\x7f")  # one float32 NaN
    data = ActivationDataModule(str(folder), batch_size=64, validation_share=0.0, test_share=0.0, verify=False)
    settings = {"max_steps": -1, "max_epochs": 1}
    with pytest.raises(UserError, match=r"shard 0, row 1000.*not finite"):
        trainer(tmp_path, **settings).fit(module(sample_rows=100), data)
    (content,) = saved(tmp_path).values()
    assert content["batches"][0]["not_finite_rows"] == [1000]

    model = module("skip", sample_rows=100)
    trainer(tmp_path, **settings).fit(model, data)
    assert model.watches["only"].left_out == 1
    assert all(parameter.isfinite().all() for parameter in model.parameters())


@pytest.mark.first_is_fast
@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize("optimizer", ["fused", "foreach", "sgd", "adamw"])
def test_skip_leaves_weights_and_moments_bit_for_bit_and_goes_on(data, tmp_path, name, optimizer):
    makers = {
        "fused": lambda parameters: torch.optim.Adam(parameters, lr=3e-3, fused=True),
        "foreach": lambda parameters: torch.optim.Adam(parameters, lr=3e-3, foreach=True),
        "sgd": lambda parameters: torch.optim.SGD(parameters, lr=1e-2, momentum=0.9, weight_decay=0.1),
        "adamw": lambda parameters: torch.optim.AdamW(parameters, lr=3e-3, weight_decay=0.1),
    }
    breaks = Breaks({0, 5, 6}, *WRONG[name][:2])
    model = module("skip", optimizer=makers[optimizer])
    fit = trainer(tmp_path, callbacks=[breaks])
    with pytest.warns(UserWarning, match=r"became (nan|inf) at step 5: it is left out \(its rows: .*step-00000005"):
        fit.fit(model, data)
    assert same(breaks.after[6], breaks.after[5])
    assert same(breaks.after[7], breaks.after[5])
    assert not same(breaks.after[8], breaks.after[7])
    assert fit.global_step == 12, "the schedule counts every step"
    assert int(model.only.tokens_seen) == 12 * 64, "its tokens have been read"
    assert breaks.logged[-1]["train/steps_left_out"] == model.watches["only"].left_out == 3
    assert list(saved(tmp_path)) == [f"step-{step:08d}.json" for step in (0, 5, 6)]
    assert breaks.logged[-1]["train/fvu"] < breaks.logged[1]["train/fvu"]


def test_a_step_left_out_leaves_the_others_as_if_it_had_not_been(data, tmp_path):
    """Accumulated: one bad batch of three takes the whole step with it, and the next step begins afresh."""
    breaks = Breaks({3})
    trainer(tmp_path, callbacks=[breaks], accumulate_grad_batches=3, max_steps=6).fit(module("skip"), data)
    assert same(breaks.after[4], breaks.after[3])
    assert not same(breaks.after[5], breaks.after[4])
    (content,) = saved(tmp_path).values()
    assert [batch["loss"] for batch in content["batches"]] == ["nan"] * 3


def test_too_many_in_a_row_stop_the_run_and_a_good_one_between_does_not(data, tmp_path):
    scattered = set(range(12)) - {3, 7}
    model = module("skip", most_non_finite_in_a_row=4)
    trainer(tmp_path, callbacks=[Breaks(scattered)]).fit(model, data)
    assert model.watches["only"].left_out == 10
    with pytest.raises(UserError, match=r"nan at step 8, the last of 5 steps in a row: lower the learning rate"):
        trainer(tmp_path, callbacks=[Breaks(range(4, 12))]).fit(module("skip", most_non_finite_in_a_row=4), data)


@pytest.fixture
def every_four_steps(monkeypatch):
    monkeypatch.setattr(non_finite, "SNAPSHOT_EVERY_N_STEPS", 4)


@pytest.mark.usefixtures("every_four_steps")
def test_roll_back_brings_back_weights_and_moments_of_the_last_snapshot(data, tmp_path):
    breaks = Breaks({7})
    with pytest.warns(UserWarning, match=r"nan at step 7: it is left out and the weights of step 4 are back"):
        trainer(tmp_path, callbacks=[breaks]).fit(module("roll_back"), data)
    assert same(breaks.after[8], breaks.after[4])
    assert not same(breaks.after[8], breaks.after[7])
    assert not same(breaks.after[9], breaks.after[8])


@pytest.mark.usefixtures("every_four_steps")
def test_before_the_first_good_step_there_is_nothing_to_roll_back_to(data, tmp_path):
    breaks, model = Breaks({0, 1, 3}), module("roll_back")
    trainer(tmp_path, callbacks=[breaks], max_steps=6).fit(model, data)
    assert same(breaks.after[2], breaks.after[1])
    assert same(breaks.after[4][:4], breaks.after[2]), "the snapshot of step 2, before there were moments"
    assert len(breaks.after[4]) == 4


@pytest.mark.usefixtures("every_four_steps")
@pytest.mark.parametrize("policy", ["skip", "roll_back"])
def test_a_run_resumed_before_between_or_after_bad_steps_is_bit_identical(data, tmp_path, policy):
    class Saves(Breaks):
        def on_train_batch_end(self, trainer, *_):
            super().on_train_batch_end(trainer, *_)
            trainer.save_checkpoint(tmp_path / f"{trainer.global_step}")

    bad = {6, 7, 10}
    straight, breaks = module(policy), Saves(bad)
    trainer(tmp_path, callbacks=[breaks]).fit(straight, copy.deepcopy(data))
    for stopped_after in (5, 7, 8, 9):
        resumed, again = module(policy), Breaks(bad)
        settings = {"logger": False, "default_root_dir": tmp_path / f"after {stopped_after}"}
        again_trainer = trainer(tmp_path, callbacks=[again], **settings)
        again_trainer.fit(resumed, copy.deepcopy(data), ckpt_path=tmp_path / f"{stopped_after}")
        assert resumed.watches["only"].left_out == straight.watches["only"].left_out == 3
        assert all(torch.equal(value, resumed.state_dict()[name]) for name, value in straight.state_dict().items())
        assert same(again.after[12], breaks.after[12])


def test_a_loss_that_is_finite_keeps_its_gradient_and_one_that_is_not_poisons_it():
    for value, expected in [(2.0, 3.0), (float("inf"), float("nan")), (float("nan"), float("nan"))]:
        x = torch.tensor(1.0, requires_grad=True)
        loss = with_bad_gradient_if_bad(3 * x + value)
        assert loss.detach().equal(torch.tensor(3 + value)) or value != value
        loss.backward()
        torch.testing.assert_close(x.grad, torch.tensor(expected), equal_nan=True)


def scaled():
    return MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=4.0))


def by_adam(parameters):
    return torch.optim.Adam(parameters, lr=3e-3)


@pytest.mark.parametrize("policy", ["skip", "roll_back"])
def test_a_policy_is_refused_where_a_scaler_has_its_own(data, tmp_path, policy):
    with pytest.raises(UserError, match=rf"model\.non_finite is {policy}, and trainer\.precision 16-mixed .* bf16"):
        trainer(tmp_path, plugins=[AtomicCheckpointIO(), scaled()]).fit(module(policy, optimizer=by_adam), data)


def test_beside_a_scaler_gradients_are_its_business_and_losses_stop_the_run(data, tmp_path):
    precision, breaks = scaled(), Breaks({5}, "gradient_factor", float("inf"))
    fit = trainer(tmp_path, plugins=[AtomicCheckpointIO(), precision], callbacks=[breaks], max_steps=8)
    model = module(optimizer=by_adam)
    fit.fit(model, data)
    assert all(parameter.isfinite().all() for parameter in model.parameters())
    assert float(precision.scaler.get_scale()) == 2.0
    fit = trainer(tmp_path, plugins=[AtomicCheckpointIO(), scaled()], callbacks=[Breaks({0})])
    with pytest.raises(UserError, match="the loss became nan at step 0"):
        fit.fit(module(optimizer=by_adam), data)


class Noted(Breaks):
    def __init__(self, folder, *args):
        super().__init__(*args)
        self.folder = folder

    def on_train_end(self, trainer, pl_module):
        after = {step: [float(tensor.double().sum()) for tensor in state] for step, state in self.after.items()}
        noted = {"after": after, "left_out": pl_module.watches["only"].left_out}
        (self.folder / f"{trainer.global_rank}.json").write_text(json.dumps(noted))


@pytest.mark.slow
@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize("policy", ["skip", "roll_back"])
def test_two_processes_do_the_same_though_only_one_has_gone_wrong(data, tmp_path, policy, name):
    noted = Noted(tmp_path, {4, 5}, *WRONG[name][:2], 1)
    trainer(tmp_path, callbacks=[noted], devices=2, strategy="ddp_fork", max_steps=8).fit(module(policy), data)
    one, other = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert one == other
    assert one["left_out"] == 2
    assert one["after"]["5"] == one["after"]["6"] != one["after"]["7"]
    if policy == "skip":
        assert one["after"]["5"] == one["after"]["4"]
    files = saved(tmp_path)
    assert list(files) == [f"step-{step:08d}.rank-{rank}.json" for step in (4, 5) for rank in (0, 1)]
    rows = [file["batches"][0]["rows"] for file in files.values()]
    assert not set(rows[0]) & set(rows[1]), "each rank tells its own rows"
