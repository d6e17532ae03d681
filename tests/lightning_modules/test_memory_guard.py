"""Steps in parts against the same step as a whole, and runs in which real allocations fail."""

import copy
import importlib.util
import json
import warnings
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning.pytorch import Callback, Trainer

from callbacks import AtomicCheckpointIO
from lightning_modules.autoencoders import AbsTopK, Gated, JumpReLU, PAnneal, ReLU, TopK
from lightning_modules.memory_guard import Batch, MemoryGuard, ran_out_of_memory
from lightning_modules.sparse_autoencoding import SparseAutoencoding
from run_store import UserError

_spec = importlib.util.spec_from_file_location("hungry", Path(__file__).with_name("hungry.py"))
hungry = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(hungry)

DEAD = torch.arange(20)
D, ROWS = 7, 37
VARIANTS = {
    "topk": (lambda: TopK(48, 4), None),
    "topk with dead latents": (lambda: TopK(48, 4, aux_k_coefficient=0.7, k_aux=9), DEAD),
    "topk with fewer dead latents than k_aux": (lambda: TopK(48, 4, aux_k_coefficient=0.7), DEAD[:2]),
    "topk without aux_k": (lambda: TopK(48, 4, aux_k_coefficient=0.0), DEAD),
    "topk with multi_topk": (lambda: TopK(48, 4, multi_topk_coefficient=0.3), DEAD),
    "abs_topk with dead latents": (lambda: AbsTopK(48, 4, aux_k_coefficient=0.7), DEAD),
    "relu": (lambda: ReLU(48, l1_coefficient=0.3), None),
    "relu, tied, with ghost gradients": (lambda: ReLU(48, 0.3, tied=True, ghost_gradients=0.7), DEAD),
    "p_anneal": (lambda: PAnneal(48, 0.3), None),
    "jump_relu": (lambda: JumpReLU(48, bandwidth=0.5, pre_act_coefficient=0.7), DEAD),
    "jump_relu with a target": (lambda: JumpReLU(48, penalty="target", target_l0=5, bandwidth=0.5), None),
    "gated": (lambda: Gated(48, l1_coefficient=0.3), None),
}


def total(terms):
    return torch.stack([term.value * term.weight for term in terms.values()]).sum()


def built(make, dtype=torch.float64):
    torch.manual_seed(0)
    autoencoder = make()
    autoencoder.build(D)
    with torch.no_grad():
        autoencoder.b_enc.normal_(std=0.3)
        autoencoder.b_dec.normal_()
        autoencoder.mean.normal_()
    return autoencoder.to(dtype)


def unguarded(autoencoder, x, dead):
    """Loss, terms and gradients of the plain step."""
    result = autoencoder.training_pass(x, dead)
    loss = total(result.terms)
    gradients = torch.autograd.grad(loss, list(autoencoder.parameters()))
    return loss.detach(), {name: term.value.detach() for name, term in result.terms.items()}, gradients


def guarded(autoencoder, x, dead, rows_at_once=None, factor=1.0, scale=1.0, guard=None):
    guard = guard or MemoryGuard(rows_at_once)
    step = guard.step(Batch.of(autoencoder, x, dead, total), lambda: scale)
    autoencoder.zero_grad()
    (step.loss * factor).backward()
    return step, [parameter.grad for parameter in autoencoder.parameters()]


@pytest.mark.parametrize("rows_at_once", [19, 10, 36, 1])
@pytest.mark.parametrize("name", VARIANTS)
def test_the_gradient_of_parts_is_that_of_the_whole(name, rows_at_once):
    """For every loss term there is, though every part has a mean and a variance of its own."""
    make, dead = VARIANTS[name]
    autoencoder = built(make)
    x = torch.randn(ROWS, D, dtype=torch.float64) * torch.linspace(0.1, 3, ROWS, dtype=torch.float64)[:, None]
    loss, terms, expected = unguarded(autoencoder, x, dead)
    step, gradients = guarded(autoencoder, x, dead, rows_at_once)
    torch.testing.assert_close(step.loss.detach(), loss, rtol=1e-12, atol=0)
    assert step.terms.keys() == terms.keys()
    for term, value in terms.items():
        torch.testing.assert_close(step.terms[term], value, rtol=1e-12, atol=0)
    for parameter, gradient, right in zip(autoencoder.state_dict(), gradients, expected, strict=False):
        assert right.any(), parameter
        assert (gradient - right).abs().max() <= 1e-12 * right.abs().max(), parameter
    assert torch.equal(step.firing_counts, autoencoder(x)[0].firing_counts())


@settings(max_examples=40)
@given(
    rows=st.integers(1, 24),
    size=st.integers(1, 25),
    dead=st.integers(0, 12),
    k_aux=st.integers(1, 14),
    offset=st.sampled_from([0.0, 100.0]),
)
def test_parts_of_any_size_add_up(rows, size, dead, k_aux, offset):
    autoencoder = built(lambda: TopK(24, 2, aux_k_coefficient=1.0, k_aux=k_aux))
    x = torch.randn(rows, D, dtype=torch.float64) + offset
    latents = torch.arange(dead) if dead else None
    loss, _, expected = unguarded(autoencoder, x, latents)
    step, gradients = guarded(autoencoder, x, latents, size)
    torch.testing.assert_close(step.loss.detach(), loss, rtol=1e-11, atol=0)
    largest = max(right.abs().max() for right in expected)
    for gradient, right in zip(gradients, expected, strict=True):
        assert (gradient - right).abs().max() <= 1e-11 * largest


@pytest.mark.parametrize("name", VARIANTS)
def test_in_single_precision_parts_differ_by_rounding_alone(name):
    make, dead = VARIANTS[name]
    autoencoder, x = built(make, torch.float32), torch.randn(ROWS, D)
    expected = unguarded(autoencoder, x, dead)[2]
    for gradient, right in zip(guarded(autoencoder, x, dead, 10)[1], expected, strict=True):
        assert (gradient - right).abs().max() <= 1e-5 * right.abs().max()


@pytest.mark.parametrize("name", VARIANTS)
def test_parts_by_their_own_denominators_would_give_another_gradient(name):
    """So the test above can fail."""
    make, dead = VARIANTS[name]
    autoencoder = built(make)
    x = torch.randn(ROWS, D, dtype=torch.float64) * torch.linspace(0.1, 3, ROWS, dtype=torch.float64)[:, None]
    expected = unguarded(autoencoder, x, dead)[2]
    parts = [unguarded(autoencoder, part, dead)[2] for part in x.split(19)]
    naive = [(one * 19 + other * 18) / 37 for one, other in zip(*parts, strict=True)]
    assert any(
        (gradient - right).abs().max() > 1e-3 * right.abs().max()
        for gradient, right in zip(naive, expected, strict=True)
    )


@pytest.mark.parametrize("factor", [1.0, 1 / 3, 4096.0])
@pytest.mark.parametrize("name", VARIANTS)
def test_while_memory_lasts_the_step_has_the_bits_of_an_unguarded_one(name, factor):
    """Whatever the loss is multiplied by on the way: accumulation divides it, a GradScaler multiplies it."""
    make, dead = VARIANTS[name]
    autoencoder, x = built(make, torch.float32), torch.randn(ROWS, D)
    (total(autoencoder.training_pass(x, dead).terms) * factor).backward()
    expected = [parameter.grad for parameter in autoencoder.parameters()]
    gradients = guarded(autoencoder, x, dead, factor=factor)[1]
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(gradients, expected, strict=True))


@pytest.mark.parametrize("name", VARIANTS)
def test_parts_keep_the_precision_and_the_scale_of_the_whole(name):
    make, dead = VARIANTS[name]
    autoencoder, x = built(make, torch.float32), torch.randn(ROWS, D)

    def gradients(autocast, rows_at_once, scale):
        with autocast:
            guard = MemoryGuard(rows_at_once)
            loss = guard.step(Batch.of(autoencoder, x, dead, total), lambda: scale).loss
        autoencoder.zero_grad()
        (loss * 512).backward()
        return [parameter.grad for parameter in autoencoder.parameters()]

    def bf16():
        return torch.autocast("cpu", torch.bfloat16)

    exact, whole = gradients(nullcontext(), None, 1), gradients(bf16(), None, 1)
    for scale in (1.0, 512.0):
        parts = gradients(bf16(), 10, scale)
        for one, other, right in zip(whole, parts, exact, strict=True):
            assert one.dtype == other.dtype == torch.float32
            assert other.any()
            # the same bf16 products: what is left is the order of their sums
            assert (one - other).abs().max() <= 0.02 * right.abs().max()
    assert not all(torch.equal(one, right) for one, right in zip(whole, exact, strict=True))


@pytest.mark.parametrize("way", ["forward", "backward"])
@pytest.mark.parametrize(("room", "expected"), [(37, None), (36, 19), (10, 10), (9, 5), (1, 1)])
@pytest.mark.parametrize(
    "make", [lambda: hungry.HungryTopK(48, 4), lambda: hungry.HungryReLU(48)], ids=["topk", "relu"]
)
def test_a_step_that_runs_out_on_either_way_is_halved_until_it_fits_and_remembers(make, way, room, expected):
    autoencoder, x, guard = built(make), torch.randn(ROWS, D, dtype=torch.float64), MemoryGuard()
    right = unguarded(autoencoder, x, DEAD)[2]
    setattr(autoencoder, f"rows_{way}", room)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(2):
            gradients = guarded(autoencoder, x, DEAD, guard=guard)[1]
            assert guard.rows_at_once == expected
            for gradient, whole in zip(gradients, right, strict=True):
                assert (gradient - whole).abs().max() <= 1e-12 * whole.abs().max()
    told = [str(warning.message) for warning in caught]
    assert len(told) == (expected is not None), "once, not at every step"
    assert all(f"a batch of 37 rows: from here on it is computed {expected} rows at a time" in line for line in told)


def test_a_failed_backward_leaves_no_half_gradient_in_an_accumulation():
    autoencoder = built(lambda: hungry.HungryTopK(48, 4))
    x = torch.randn(2, ROWS, D, dtype=torch.float64)
    expected = [sum(pair) for pair in zip(*(unguarded(autoencoder, part, DEAD)[2] for part in x), strict=True)]
    guard = MemoryGuard()
    autoencoder.zero_grad()
    for part, room in zip(x, (100, 20), strict=True):
        autoencoder.rows_backward = room
        guard.step(Batch.of(autoencoder, part, DEAD, total)).loss.backward()
    for parameter, right in zip(autoencoder.parameters(), expected, strict=True):
        assert (parameter.grad - right).abs().max() <= 1e-12 * right.abs().max()


def test_a_row_that_does_not_fit_is_one_sentence():
    autoencoder = built(lambda: hungry.HungryTopK(48, 4))
    autoencoder.rows_forward = 0
    with pytest.raises(UserError, match=r"memory ran out on a single row: lower model\.autoencoder\.d_sae"):
        guarded(autoencoder, torch.randn(ROWS, D, dtype=torch.float64), None)


@pytest.mark.parametrize("way", ["forward", "backward"])
def test_a_variant_that_selects_over_the_batch_is_not_cut_but_refused(way):
    autoencoder = built(lambda: hungry.SelectsOverTheBatch(48))
    x = torch.randn(ROWS, D, dtype=torch.float64)
    guarded(autoencoder, x, None)
    setattr(autoencoder, f"rows_{way}", 36)
    with pytest.raises(UserError, match=r"a batch of 37 rows, and SelectsOverTheBatch selects .* data\.batch_size"):
        guarded(autoencoder, x, None)


def test_other_errors_are_not_taken_for_a_lack_of_memory():
    autoencoder = built(lambda: TopK(48, 4))
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        guarded(autoencoder, torch.randn(ROWS, D + 1, dtype=torch.float64), None)
    assert not ran_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not ran_out_of_memory(ValueError("out of memory"))
    assert ran_out_of_memory(torch.OutOfMemoryError("CUDA out of memory."))
    with pytest.raises(MemoryError) as caught:
        bytearray(hungry.TOO_MUCH)
    assert ran_out_of_memory(caught.value)


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
        "log_every_n_steps": 1,
        "gradient_clip_val": 1.0,
        "plugins": [AtomicCheckpointIO()],
        "default_root_dir": folder,
    }
    return Trainer(**{**defaults, **more})


def module(autoencoder):
    torch.manual_seed(0)
    return SparseAutoencoding(autoencoder, dead_after_tokens=200)


class RunsOut(Callback):
    """From a step on fewer rows fit."""

    def __init__(self, step, rows, way="forward", only_rank=None):
        self.step, self.rows, self.way, self.only_rank = step, rows, way, only_rank
        self.logged = []

    def on_train_batch_start(self, trainer, pl_module, *_):
        if trainer.global_step >= self.step and self.only_rank in (None, trainer.global_rank):
            setattr(pl_module.autoencoder, f"rows_{self.way}", self.rows)

    def on_train_batch_end(self, trainer, *_):
        self.logged.append({name: float(value) for name, value in trainer.callback_metrics.items()})


def ran(runs_out, data, folder, more):
    model = module(hungry.HungryTopK(24, 3))
    trainer(folder, callbacks=[runs_out], **more).fit(model, data)
    return model


@pytest.mark.parametrize("more", [{}, {"accumulate_grad_batches": 3}], ids=["plain", "accumulated"])
def test_a_run_that_runs_out_ends_as_one_that_does_not_with_everything_counted_once(data, tmp_path, more):
    calm, short = RunsOut(10**9, 0), RunsOut(4, 20, "backward")
    whole, parts = ran(calm, data, tmp_path, more), ran(short, data, tmp_path, more)
    assert int(parts.only.tokens_seen) == int(whole.only.tokens_seen)
    assert torch.equal(parts.only.tokens_since_fired, whole.only.tokens_since_fired)
    assert [step["train/l0"] for step in short.logged] == [step["train/l0"] for step in calm.logged]
    assert [step["train/loss"] for step in short.logged] == pytest.approx([step["train/loss"] for step in calm.logged])
    torch.testing.assert_close(parts.autoencoder.W_dec, whole.autoencoder.W_dec, rtol=0, atol=1e-3)
    assert "train/rows_at_once" not in calm.logged[-1]
    assert short.logged[-1]["train/rows_at_once"] == 16


class SavesNinth(Callback):
    def __init__(self, path):
        self.path = path

    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == 9:
            trainer.save_checkpoint(self.path)


def test_the_size_is_saved_and_a_resumed_run_is_bit_identical(data, tmp_path):
    straight = module(hungry.HungryTopK(24, 3))
    trainer(tmp_path, callbacks=[RunsOut(4, 20), SavesNinth(tmp_path / "ninth")]).fit(straight, copy.deepcopy(data))
    state = torch.load(tmp_path / "ninth" / "state.ckpt", weights_only=True)
    assert json.loads(json.dumps(state["memory"])) == {"only": {"rows_at_once": 16}}

    resumed = module(hungry.HungryTopK(24, 3))
    trainer(tmp_path).fit(resumed, data, ckpt_path=tmp_path / "ninth")
    assert resumed.only.memory.rows_at_once == 16, "though nothing has run out here"
    assert all(torch.equal(value, resumed.state_dict()[name]) for name, value in straight.state_dict().items())


def test_a_size_can_be_set_and_a_checkpoint_does_not_raise_it():
    for set_now, saved, expected in [(None, None, None), (8, None, 8), (None, 16, 16), (8, 16, 8), (32, 16, 16)]:
        guard = MemoryGuard(set_now)
        guard.load_state_dict({"rows_at_once": saved})
        assert guard.rows_at_once == expected


class Noted(RunsOut):
    def __init__(self, folder, *args):
        super().__init__(*args)
        self.folder = folder

    def on_train_batch_start(self, trainer, pl_module, *_):
        super().on_train_batch_start(trainer, pl_module)
        self.saved = pl_module.only.memory.state_dict()

    def on_train_end(self, trainer, pl_module):
        digest = [float(value.double().sum()) for value in pl_module.state_dict().values()]
        noted = {"rows": self.saved["rows_at_once"], "digest": digest}
        (self.folder / f"{trainer.global_rank}.json").write_text(json.dumps(noted))


TWO = {"devices": 2, "strategy": "ddp_fork", "max_steps": 8, "max_epochs": -1}


@pytest.mark.slow
@pytest.mark.parametrize("way", ["forward", "backward"])
def test_when_one_of_two_processes_runs_out_both_go_on_and_save_the_smaller_size(data, tmp_path, way):
    trainer(tmp_path, callbacks=[Noted(tmp_path, 3, 9, way, 1)], **TWO).fit(module(hungry.HungryTopK(24, 3)), data)
    one, other = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert one["rows"] == other["rows"] == 8
    assert one["digest"] == other["digest"]
    (tmp_path / "calm").mkdir()
    calm = Noted(tmp_path / "calm", 10**9, 0)
    trainer(tmp_path, callbacks=[calm], **TWO).fit(module(hungry.HungryTopK(24, 3)), data)
    without = json.loads((tmp_path / "calm" / "0.json").read_text())
    assert without["rows"] is None
    assert one["digest"] == pytest.approx(without["digest"], rel=1e-3, abs=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("way", ["forward", "backward"])
def test_when_one_of_two_processes_cannot_go_on_it_stops_with_the_sentence(data, tmp_path, way):
    with pytest.raises(Exception, match="memory ran out on a single row"):
        trainer(tmp_path, callbacks=[Noted(tmp_path, 3, 0, way, 1)], **TWO).fit(module(hungry.HungryTopK(24, 3)), data)
    assert not list(tmp_path.glob("*.json"))
